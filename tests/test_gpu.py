"""timings/bench_gpu.py: on this machine's GPU, if asked, what has to be equal; elsewhere, all of it, tiny."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ASKED_FOR_A_GPU, ROOT, patience

from trainers.methods import methods


def lines_of(out: Path, *words: str) -> dict[str, list[dict[str, Any]]]:
    """Its lines, by section."""
    command = [sys.executable, str(ROOT / "timings" / "bench_gpu.py"), "--out", str(out), *words]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    return {file.stem: [json.loads(line) for line in file.read_text().splitlines()] for file in out.glob("*.jsonl")}


def check_equal(lines: list[dict[str, Any]]) -> None:
    assert not [line for line in lines if "failed" in line]
    apart = [line for line in lines if line.get("tf32") is False]
    assert apart
    assert all(line["largest_relative_difference"] < 1e-3 for line in apart)  # ProGrad's comes from its projection
    tested = [line for line in lines if "accuracy_cpu" in line]
    assert all(abs(line["accuracy_cpu"] - line["accuracy_gpu"]) < 1 for line in tested)  # %
    runs = [line for line in lines if "bit_equal" in line]
    assert runs
    assert all(line["bit_equal"] and line["replayed_equals_kernel_by_kernel"] for line in runs)


@pytest.mark.skipif(not ASKED_FOR_A_GPU, reason="for a machine with a GPU: MOCOOP_TEST_GPU=1")
def test_what_has_to_be_equal_on_a_gpu(tmp_path):
    # of which `equal` has a quarter: six times what it took on an H200
    lines = lines_of(tmp_path, "--only", "equal", "--minutes", "70")["equal"]
    check_equal(lines)
    assert {line["resumed"] for line in lines if "bit_equal" in line} == {
        name for name, method in methods().items() if method.takes_steps and not method.federated
    }
    assert {line["cpu_against_gpu"] for line in lines if "cpu_against_gpu" in line} == {
        name for name, method in methods().items() if not method.federated
    }


@pytest.mark.slow
@pytest.mark.skipif(ASKED_FOR_A_GPU, reason="tries the benchmark where there is no GPU")
def test_every_section_runs_without_a_gpu(tmp_path):
    here = (
        "ceilings,towers,steps,theirs,compiled,equal,methods,evaluation,loading,budget,demo"  # tests run by themselves
    )
    lines = lines_of(
        tmp_path, "--tiny", "--only", here, "--minutes", str(patience(20))
    )  # a busy machine leaves nothing out
    check_equal(lines["equal"])
    measured = {
        name: [line for line in lines[name] if "ms" in line]
        for name in ("ceilings", "towers", "steps", "methods", "evaluation")
    }
    assert all(rows and all(row["ms"] > 0 for row in rows) for rows in measured.values())
    assert [row for row in lines["loading"] if "ms_per_batch_of_32" in row]


def test_a_section_that_is_not_there():
    done = subprocess.run(
        [sys.executable, "timings/bench_gpu.py", "--only", "nosuch"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "no section nosuch: choose from ceilings, " in done.stderr
