"""Whole runs under a GPU's rules, with a CPU's numbers (virtual/gpu.py)."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import ROOT, golden_state, patience

from harness.command import gpus_to_share, refuse_absent
from harness.launcher import Cold, environments
from harness.plan import Job
from harness.runner import Runner
from trainers.core.clip.text_tower import memory_to_use
from trainers.core.ranks.processes import SHARING

VIRTUAL = ROOT / "tests" / "virtual"
METHODS = ("MoCoOp", "CoOp", "CoCoOp", "LASP")
PRECISIONS = ("fp32", "fp16", "amp", "bf16")
# Kernels of a step that is computed kernel by kernel, with the tiny CLIP: these and no more.
KERNELS = {"MoCoOp": 413, "CoOp": 207, "CoCoOp": 232, "LASP": 378}
VARIANTS = (
    "plain",
    "chunks",
    "kernels",
    "adamw",
    "deterministic",
    "tf32",
    "best_val",
    "views",
    "crops",
    "frozen",
    "tokens",
    "rank",
    "conditional",
    "head",
)
# left to the slow tests
LATER = {
    *("CoOp-fp16", "CoOp-bf16", "CoCoOp-amp", "CoCoOp-bf16", "LASP-fp16", "LASP-amp", "LASP-amp-within"),
    *("MoCoOp-fp32-between", "CoOp-bf16-within"),
    *(f"MoCoOp-{v}" for v in VARIANTS if v not in ("chunks", "kernels", "conditional", "head")),
}
pytestmark = pytest.mark.xdist_group("gpu_rules")


@pytest.fixture(scope="module")
def data(mini_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gpu") / "data"
    root.mkdir()
    (root / "caltech-101").symlink_to(mini_root / "caltech-101")
    torch.save(golden_state(), root / "tiny_clip.pt")
    return root


def runs_of(data: Path, *words: str) -> dict[str, dict[str, Any]]:
    """Runs of virtual/cases.py, by name."""
    command = [sys.executable, str(VIRTUAL / "cases.py"), str(data), str(data.parent / "out"), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=patience(600))
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0, done.stderr[-2000:]
    return {row["case"]: row for row in rows}


@pytest.fixture(scope="module")
def cases(data: Path) -> dict[str, dict[str, Any]]:
    return runs_of(data, "main", ",".join(LATER))


@pytest.fixture(scope="module")
def rest(data: Path) -> dict[str, dict[str, Any]]:
    return runs_of(data, "rest", ",".join(LATER))


@pytest.fixture(scope="module")
def leaders(data: Path) -> dict[str, dict[str, Any]]:
    return runs_of(data, "leaders")


@pytest.fixture(scope="module")
def others(data: Path) -> dict[str, dict[str, Any]]:
    return runs_of(data, "once_at_fault")


@pytest.fixture
def case(cases: dict[str, dict[str, Any]], request: pytest.FixtureRequest) -> Callable[[str], dict[str, Any]]:
    return lambda name: finder(request.getfixturevalue("rest") if name in LATER else cases)(name)


def sorted_out(names: Iterable[str], form: str = "{}") -> list[Any]:
    """As parameters, those of LATER marked as slow."""
    return [pytest.param(name, marks=pytest.mark.slow) if form.format(name) in LATER else name for name in names]


@pytest.fixture
def leader(leaders: dict[str, dict[str, Any]]) -> Callable[[str], dict[str, Any]]:
    return finder(leaders)


@pytest.fixture
def other(others: dict[str, dict[str, Any]]) -> Callable[[str], dict[str, Any]]:
    return finder(others)


def finder(cases: dict[str, dict[str, Any]]) -> Callable[[str], dict[str, Any]]:
    def find(name: str) -> dict[str, Any]:
        found = cases[name]
        assert (found["status"], found["error"]) == (0, ""), found
        told = [w for w in found.get("warnings", []) if "pin_memory" not in w]  # this machine has nothing to pin for
        assert not told
        return found

    return find


@pytest.mark.parametrize("name", sorted_out(f"{method}-{prec}" for method in METHODS for prec in PRECISIONS))
def test_every_method_trains_in_every_precision(name, case):
    run, (method, prec) = case(name), name.split("-")
    assert not run["notes"]
    _, eager, *_, replayed = run["steps"]  # in the first, tables are made
    assert eager["kernels"] <= KERNELS[method]
    assert replayed["replays"] == 1
    assert replayed["kernels"] <= (41 if method in ("MoCoOp", "LASP") else 15)  # optimiser, scaler, noise
    assert replayed["copy to the GPU"] == 2  # pictures, labels
    # the scaler asks once whether all gradients were finite; else nothing waits
    waits = {kind: n for kind, n in replayed.items() if kind.startswith("wait")}
    assert waits == ({"wait: item": 1} if prec == "amp" else {})
    assert replayed.get("float64", 0) == (2 if prec == "amp" else 0)  # in the scaler
    assert eager.get("cast of a frozen weight", 0) <= 4  # the two projections, there and back


@pytest.mark.parametrize("name", sorted_out(f"{method}-{prec}" for method in METHODS for prec in PRECISIONS[1:]))
def test_losses_of_all_precisions_are_near_each_other(name, case):
    exact = case(f"{name.split('-')[0]}-fp32")["losses"]
    assert len(exact) == 6
    assert case(name)["losses"] == pytest.approx(exact, rel=2e-2)


@pytest.mark.parametrize("name", ["HardMixture-fp16", "HardMixture-bf16", "ZeroshotCLIP", "LinearProbe", "LPPlusPlus",
                                  "TipAdapter-fp16", "GDA-fp16"])  # fmt: skip
def test_methods_without_steps(name, case):
    fetches = [place for place in case(name)["waits"] if "evaluation.py" in place]
    assert len(fetches) == 1


@pytest.mark.parametrize("name", sorted_out(VARIANTS, "MoCoOp-{}"))
def test_settings(name, case):
    run = case(f"MoCoOp-{name}")
    assert not run["notes"]
    assert run["steps"][-1].get("replays", 0) == (name not in ("kernels", "conditional"))


@pytest.mark.parametrize("name", ["NormTuning-base", "NormTuning-new", "CoCoOp-best_val"])
def test_what_a_gpu_alone_would_have_shown(name, case):
    """A head for other classes, in half precision; a recorded step whose prompts an evaluation has replaced."""
    assert case(name)["error"] == ""


@pytest.mark.parametrize("prec", ["fp16", "amp"])
def test_a_federation_trains_in_half_precision(prec, other):
    assert other(f"PFedMoAP-{prec}")["rounds"] == 3


def test_a_search_with_prompts_in_chunks(other):
    whole, parts = other("DPL-whole"), other("DPL-chunks")
    assert parts["losses"] == pytest.approx(whole["losses"], rel=2e-2)


def test_dropout_in_chunks_is_not_recorded_and_it_is_said_why(other):
    """Checkpoints of chunks keep the generator's state, which cannot be asked for while a step is recorded."""
    chunks = other("CLIPLoRA-chunks")
    assert any("dropout in prompts that are encoded in chunks" in note for note in chunks["notes"])
    assert all(math.isfinite(loss) for loss in chunks["losses"])


@pytest.mark.parametrize("name", ["CLIPSVD", "CLIPLoRA"])
def test_computed_matrices_are_used_in_half_precision(name, other):
    assert other(f"use-{name}-once")["apart"] < 0.02


def test_a_replayed_step_is_the_step_bit_by_bit(case):
    replayed, by_kernels = case("MoCoOp-amp"), case("MoCoOp-kernels")
    assert replayed["losses"] == by_kernels["losses"]
    assert replayed["trained"] == by_kernels["trained"]


def test_a_step_that_cannot_be_recorded_is_computed_as_it_is(case):
    """Also where the backward pass had begun: nothing of it is left in the gradients."""
    asks, by_kernels = case("CoOp-asks"), case("CoOp-asks-kernels")
    (note,) = asks["notes"]
    assert "cannot be recorded: CUDA error: operation not permitted when stream is capturing" in note
    assert not by_kernels["notes"]
    assert not asks["pools"]  # its memory is given back
    assert asks["losses"] == by_kernels["losses"]
    assert asks["trained"] == by_kernels["trained"]


@pytest.mark.parametrize("name", ["MoCoOp-fp32", "MoCoOp-chunks", "CoCoOp-fp16", "LASP-bf16"])
def test_waits_of_a_whole_run_do_not_grow_with_its_steps(name, case):
    """Losses are fetched at the end of an epoch, logits sixteen batches at a time; the rest is done once."""
    in_steps = {place: n for place, n in case(name)["waits"].items() if "epoch.py" in place or "evaluation.py" in place}
    assert in_steps
    assert max(in_steps.values()) <= 4


def test_evaluation_of_another_runs_model(case):
    assert case("MoCoOp-eval")["losses"] == []


def test_a_loss_that_is_not_finite_keeps_the_weights(cases):
    bad = cases["MoCoOp-bad"]
    assert bad["status"] == 1
    assert "loss is not finite at epoch 1, batch 2" in bad["error"]
    assert bad["kept"]


@pytest.mark.parametrize(
    "name", sorted_out(["LASP-amp-within", "MoCoOp-fp32-between", "CoCoOp-fp16-within", "CoOp-bf16-within"])
)
def test_what_was_stopped_goes_on_bit_by_bit(name, case):
    went_on(case(name))


def went_on(run):
    assert run["stopped"] == 75
    assert run["bit_equal"]
    assert run["losses"][0] == run["losses"][1]


@pytest.mark.parametrize("name", ["MoCoOp-amp", "CoCoOp-fp16", "LASP-bf16", "HardMixture-fp16", "LinearProbe",
                                  "MoCoOp-head"])  # fmt: skip
def test_a_trained_run_is_used_on_the_gpu(name, case):
    is_used(name, case(f"use-{name}"))


def is_used(name, used):
    assert used["apart"] < 2e-3
    assert used["text_dtype"] == ("torch.float16" if "fp16" in name else "torch.float32")


def virtual(name: str, **more: str) -> dict[str, str]:
    """The environment of a Python that has a GPU of that name."""
    path = os.pathsep.join([str(VIRTUAL), *filter(None, [os.environ.get("PYTHONPATH", "")])])
    return os.environ | {"VIRTUAL_GPU": name, "PYTHONPATH": path} | more


def test_the_scripts_forked_runs(data, tmp_path):
    words = f"""scripts/run.py coop main caltech101 4 --seeds 1 --cfg small --data {data} --output {tmp_path}
        OPTIM.MAX_EPOCH 1 DATALOADER.NUM_WORKERS 0 MODEL.BACKBONE.NAME {data}/tiny_clip.pt"""
    command = [sys.executable, *words.split()]
    done = subprocess.run(
        command, cwd=ROOT, env=virtual("GPU-0"), capture_output=True, text=True, timeout=patience(300)
    )
    assert done.returncode == 0, done.stderr
    (log,) = tmp_path.glob("**/log.txt")
    assert ", Virtual GPU" in log.read_text()
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_benchmarks_put_what_they_measure_on_the_gpu(data):
    command = [sys.executable, str(VIRTUAL / "benches.py"), str(data / "tiny_clip.pt")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=patience(300))
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[:3] == ["growth", "text_encoder", "text_encoder_small"]


@pytest.mark.parametrize("name", ["GPU-{RANK}", "GPU-0"])
def test_two_ranks(name, data, tmp_path):
    """Two GPUs are trained on together; two ranks on one are refused in a line."""
    words = f"""train.py --root {data} --seed 1 --trainer MoCoOp --backbone {data}/tiny_clip.pt --output-dir {tmp_path}
        --dataset-config-file configs/datasets/caltech101.yaml --config-file configs/trainers/MoCoOp/small.yaml
        DATASET.NUM_SHOTS 4 OPTIM.MAX_EPOCH 1 DATALOADER.NUM_WORKERS 0 TRAINER.MOCOOP.PREC bf16"""
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [
        subprocess.Popen([sys.executable, *words.split()], cwd=ROOT, env=virtual(name, **own), **piped)
        for own in environments(2)
    ]
    said = [process.communicate(timeout=patience(300)) for process in started]
    if "RANK" in name:
        assert [process.returncode for process in started] == [0, 0], said[0][1] + said[1][1]
        assert "* accuracy:" in said[0][0]
    else:
        assert all(process.returncode == 1 for process in started)
        assert "share the GPU GPU-0 of " in said[0][1]
        assert "start one rank for each GPU" in said[0][1]


@pytest.mark.parametrize(("jobs", "gpus", "expected"), [(1, [], 1), (4, [], 4), (4, ["0", "1"], 2), (3, ["0", "1"], 2)])
def test_runs_on_a_gpu_share_its_memory(jobs, gpus, expected, monkeypatch):
    some = [Job(Path(str(number)), []) for number in range(4)]
    assert Runner(some, Cold({}), jobs, gpus).sharing == expected
    assert Runner(some[:1], Cold({}), jobs, gpus).sharing == 1
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: SimpleNamespace(total_memory=80))
    monkeypatch.setenv(SHARING, str(expected))
    assert memory_to_use(torch.device("cuda")) == 40 // expected


@pytest.mark.parametrize(
    ("visible", "told", "settings", "ranks", "expected"),
    [
        (None, "0\n1\n2\n", [], 1, ["0", "1", "2"]),
        (None, "0\n1\n2\n", [], 2, ["0", "1"]),
        (None, "0\n", [], 1, []),
        (None, "0\n1\n", ["USE_CUDA", "False"], 1, []),
        ("3,5", "0\n1\n", [], 1, ["3", "5"]),
        ("", "0\n1\n", [], 1, []),
        (None, None, [], 1, []),
    ],
)
def test_the_scripts_share_all_gpus_that_they_see(
    visible, told, settings, ranks, expected, tmp_path, monkeypatch, capsys
):
    """With an nvidia-smi that tells of some, or of none, or that is not there."""
    if told is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\nprintf '{told}'\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus_to_share(settings, ranks) == expected
    assert capsys.readouterr().out.startswith("Note: " if expected else "")
    refuse_absent(["0", "MIG-1"])
    if told is not None:
        with pytest.raises(ValueError, match="GPUS names 7, and this machine has 0"):
            refuse_absent(["0", "7"])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["KgCoOp", "ProGrad", "PromptSRC", "MaPLe", "TipAdapterF", "CLIPAdapter", "TCP",
                                    "CLIPLoRA", "TwoSFS", "MMRL", "MMRLpp", "CLIPSVD", "CoPrompt", "DPL"])  # fmt: skip
def test_the_leaders_are_replayed_too(method, leader):
    exact = leader(f"{method}-fp32")
    for prec in ("fp32", "fp16", "amp"):
        run = leader(f"{method}-{prec}")
        assert not run["notes"]
        assert run["steps"][-1]["replays"] == 1
        assert run["losses"] == pytest.approx(exact["losses"], rel=2e-2)


@pytest.mark.slow
def test_steps_that_cannot_be_recorded_are_not(leader):
    """PLOT++'s rounds, each of which asks the host whether it is the last."""
    for prec in ("fp32", "fp16", "amp"):
        run = leader(f"PLOTPP-{prec}")
        assert not run["notes"]
        assert run["steps"][-1].get("replays", 0) == 0
        assert run["losses"] == pytest.approx(leader("PLOTPP-fp32")["losses"], rel=5e-2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["PromptSRC-amp-within", "TipAdapterF-amp-within", "TwoSFS-amp-within", "CLIPLoRA-amp-within", "DPL-amp-within"],
)
def test_a_leader_that_was_stopped_goes_on_bit_by_bit(name, leader):
    went_on(leader(name))


@pytest.mark.slow
def test_a_trained_leader_is_used_on_the_gpu(leader):
    is_used("TipAdapterF-fp16", leader("use-TipAdapterF-fp16"))
