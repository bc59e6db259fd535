"""What is said to Slurm and understood of it, with programs in its place that answer as some clusters do."""

import json
import os
import time
from pathlib import Path

import pytest

from harness import slurm_task
from harness.plan import Job
from harness.slurm import SlurmRequest, call, job_number, note_of, queue, queued_jobs, standing, submit
from trainers.core.ranks.process_group import _ranks_here


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Writes a program of Slurm's, a shell script; what was called stands in `calls`."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    for name in ("SLURM_JOB_END_TIME", "SLURM_JOB_START_TIME"):
        monkeypatch.delenv(name, raising=False)

    def write(**scripts: str) -> Path:
        for name, script in scripts.items():
            (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/calls\n{script}\n')
            (tmp_path / name).chmod(0o755)
        return tmp_path / "calls"

    return write


@pytest.fixture
def runs(tmp_path):
    trained = [Job(tmp_path / "out" / f"train{i}", ["--seed", str(i)]) for i in (1, 2)]
    return trained + [Job(tmp_path / "out" / f"test{i}", [], needs=run) for i, run in enumerate(trained)]


def test_a_job_is_held_until_it_is_noted_and_its_number_is_read_behind_a_greeting(programs, runs, tmp_path):
    calls = programs(sbatch="cat > /dev/null; echo 'Welcome to the cluster'; echo 7", scontrol="", squeue="")
    assert submit(runs[:2], {}, "mine", tmp_path / "logs", SlurmRequest()) == ["7"]
    assert [note_of(run.folder)["job"] for run in runs[:2]] == ["7_0", "7_1"]
    first, second = calls.read_text().splitlines()
    assert "--hold" in first
    assert second == "scontrol release 7"


def test_what_cannot_be_noted_is_taken_back(programs, runs, tmp_path):
    calls = programs(sbatch="cat > /dev/null; echo 7", scontrol="", scancel="")
    (tmp_path / "out").write_text("no folder")
    with pytest.raises(OSError, match="out"):
        submit(runs[:2], {}, "mine", tmp_path / "logs", SlurmRequest())
    assert calls.read_text().splitlines()[-1] == "scancel 7"


def test_what_was_handed_over_before_a_refusal_is_said(programs, runs, tmp_path):
    refused = "(echo plugin speaking; echo 'sbatch: error: too many'; echo 'sbatch: error: no job') >&2; exit 1"
    once = f"cat > /dev/null; if [ -e {tmp_path}/taken ]; then {refused}; fi"
    programs(sbatch=f"{once}\ntouch {tmp_path}/taken; echo 7", scontrol="", scancel="")
    with pytest.raises(
        ValueError,
        match="2 of 4 runs were handed over as 7; then Slurm refused: sbatch: error: too many; sbatch: error: no job",
    ):
        submit(runs, {}, "mine", tmp_path / "logs", SlurmRequest())
    programs(squeue="echo '7_0|PENDING|Priority|mine'; echo '7_1|PENDING|Priority|mine'")
    assert len(queued_jobs(runs, queue())) == 2


def test_a_site_says_more_than_a_number_and_not_in_utf_8(programs):
    programs(sbatch="cat > /dev/null; printf 'Gepr\\374ft\n' >&2; echo Hello; echo '7;cluster'; echo Thank you")
    assert job_number(call("sbatch")) == "7"
    with pytest.raises(ValueError, match="is no job's number"):
        job_number("Hello\n")


@pytest.mark.parametrize(
    "word",
    [
        "--job-name=x",
        "-Jx",
        "--array",
        "-a",
        "--output=log",
        "--dependency=afterok:1",
        "--wait",
        "-W",
        "-Mb",
    ],
)
def test_words_that_runs_are_found_again_by(word):
    with pytest.raises(ValueError, match=f'"{word}" is no word for sbatch here'):
        SlurmRequest.of({"sbatch": ["--constraint=a100", word]}, 1, 1)
    assert SlurmRequest.of({"sbatch": ["--constraint=a100", "--account=x"]}, 1, 1).sbatch


def test_the_newest_log_counts(runs):
    folder = runs[0].folder
    folder.mkdir(parents=True)
    epoch = "epoch [{}/50] batch [1/1] time 0 (0) data 0 (0) loss 0.1 (0.1) lr 1e-4 eta 1:00:00\n"
    (folder / "log.txt").write_text(epoch.format(7))
    (folder / "log.txt-2026-11-27-10-00-00").write_text(epoch.format(44))
    os.utime(folder / "log.txt", (0, 0))
    assert standing(runs[0], {})[1].startswith("epoch 44/50")
    (folder / ".holder").write_text("process 1 on another-node, since 2026-11-27 10:00:00\n")
    assert standing(runs[0], {})[0] == "running"


def asked(runs, **more):
    tasks = {"0": [{"folder": str(run.folder), "arguments": [], "dataset": "demo", "shots": 1} for run in runs]}
    return {"jobs": 1, "ranks": 1, "warning": 120, "limit": 3600, "gpu": False, "tasks": tasks, **more}


@pytest.mark.parametrize(("minutes", "expected"), [(10, False), (58, True)])
def test_whether_a_job_had_its_time(minutes, expected, runs, programs, monkeypatch):
    begin = time.time() - 60 * minutes
    assert slurm_task.had_its_time(begin, asked(runs)) == expected
    assert not slurm_task.had_its_time(begin, asked(runs, limit=None))
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(begin + 3600)))
    assert slurm_task.had_its_time(0, asked(runs, limit=None)) == expected


def test_a_job_of_before_that_is_queued_again_says_less(runs):
    old = {"jobs": 1, "ranks": 1, "tasks": {}}
    assert not slurm_task.had_its_time(time.time(), old)


def test_what_counts_as_having_come_further(runs):
    before = slurm_task.state_of(runs)
    (runs[0].folder / "prompt_learner").mkdir(parents=True)
    assert slurm_task.state_of(runs) == before
    (runs[0].folder / "prompt_learner" / "model.pth.tar-1").write_text("")
    assert slurm_task.state_of(runs) != before


def test_a_job_without_its_gpu_ends_at_once(runs, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ValueError, match="where this job asked for one: see nvidia-smi there"):
        slurm_task.refuse_without_gpu()
    runs[0].folder.mkdir(parents=True)
    assert slurm_task.ended(runs[:1], "error: no GPU") == 1
    assert json.loads((runs[0].folder / ".job.json").read_text())["ended"] == "error: no GPU"


@pytest.mark.parametrize(
    ("said", "node", "expected"),
    [("4(x2),1", 0, "4"), ("4(x2),1", 1, "4"), ("4(x2),1", 2, "1"), ("8", 0, "8"), ("", 0, "9")],
)
def test_how_many_ranks_are_here(said, node, expected):
    assert _ranks_here({"SLURM_STEP_TASKS_PER_NODE": said, "SLURM_NODEID": str(node)}, 9) == expected
