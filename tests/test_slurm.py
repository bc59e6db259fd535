"""Protocols on a real Slurm, started here: whatever befalls the jobs, table and weights are those of an undisturbed run."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from slurm import Slurm, missing

from trainers.core.training import checkpoints

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("slurm"),
    pytest.mark.skipif(bool(missing()), reason=f"no Slurm to test with: {', '.join(missing())} not here"),
]
EPOCHS = "72"  # of one step: half a minute
SMALL = ["--cpus", "1", "--memory", "200M", "--gres", ""]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    started = Slurm(tmp_path_factory.mktemp("slurm"))
    yield started
    started.stop()


@pytest.fixture
def handed(slurm, tmp_path):
    """Calls the protocol with the cluster's options; another test's jobs are gone."""
    cluster = ["--cluster", "slurm", *SMALL]
    yield lambda *options, seeds="1", **more: protocol(slurm, tmp_path, *cluster, *options, seeds=seeds, **more)
    slurm.call("scancel", "--user=root")
    slurm.until(lambda: not slurm.jobs(), 120)


def protocol(slurm, output, *options, seeds, epochs=EPOCHS):
    env = (slurm.env if slurm else os.environ) | {"OUTPUT": str(output), "SEEDS": seeds, "PYTHON": sys.executable}
    words = ["bash", "scripts/mocoop/base2new.sh", "demo", *options, "--shots", "1", "OPTIM.MAX_EPOCH", epochs]
    done = subprocess.run(words, cwd=ROOT, env=env | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed")
    status, said, error = protocol(None, output, "--jobs", "2", seeds="1 2")
    assert status == 0, error
    return output, table(said)


def table(said):
    """The table's lines."""
    return said[said.index("Base-to-new") :].strip()


def folder_of(output, part, seed):
    return output / "base2new" / part / "demo" / "shots_1" / "MoCoOp" / "small" / f"seed{seed}"


def assert_same_as(undisturbed, output, seeds):
    for seed in seeds:
        for part in ("train_base", "test_new"):
            ours, theirs = (folder_of(place, part, seed) for place in (output, undisturbed[0]))
            found, expected = (json.loads((f / "results.json").read_text()) for f in (ours, theirs))
            for name in ("accuracy", "macro_f1", "correct", "total", "ece"):
                assert found[name] == expected[name], (part, seed, name)
            if part == "train_base":
                mine, wanted = (checkpoints.load(checkpoints.latest(f))["state_dict"] for f in (ours, theirs))
                for name, tensor in wanted.items():
                    assert torch.equal(mine[name], tensor), (seed, name)


def training(output, seed=1, epochs=8):
    """Whether that many epochs of a training are done, in however many goes."""
    return max(map(int, re.findall(r"^epoch \[(\d+)/", logs(output, seed), re.MULTILINE)), default=0) >= epochs


def logs(output, seed=1):
    """What a training has logged; each of its goes has a file."""
    return "".join(file.read_text() for file in folder_of(output, "train_base", seed).glob("log.txt*"))


def test_a_whole_protocol_as_arrays(slurm, handed, undisturbed, tmp_path):
    status, said, error = handed("--wait", seeds="1 2")
    assert status == 0, error
    assert "4 runs: 0 finished, 0 queued before, 4 handed to Slurm as " in said
    assert table(said) == undisturbed[1]
    assert_same_as(undisturbed, tmp_path, (1, 2))
    status, said, error = handed(seeds="1 2")
    assert "4 runs: 4 finished, 0 queued before, 0 handed to Slurm" in said


def test_packed_and_asked_twice(slurm, handed, undisturbed, tmp_path):
    """Two runs share a job; the same command meanwhile hands nothing over again, and the status says where they are."""
    assert handed("--pack", "2", seeds="1 2")[0] == 0
    assert len(slurm.jobs()) == 2  # a job of two trainings, and one of their evaluations
    status, said, error = handed("--pack", "2", seeds="1 2 3")
    assert "6 runs: 0 finished, 4 queued before, 2 handed to Slurm" in said
    slurm.until(lambda: training(tmp_path, 1) and training(tmp_path, 2), 120)
    status, said, error = handed("--status", seeds="1 2 3")
    running = rf"^running .*train_base\S+seed[12] +job \d+_0, epoch \d+/{EPOCHS}, batch 1/1, \S+ left$"
    assert len(re.findall(running, said, re.MULTILINE)) == 2, said
    assert len(re.findall(r"^queued .*test_new\S+ +job \d+_0 \(Dependency\)$", said, re.MULTILINE)) == 3, said
    status, said, error = handed("--wait", seeds="1 2 3")
    assert status == 0, error
    assert_same_as(undisturbed, tmp_path, (1, 2))
    assert all((folder_of(tmp_path, part, 3) / "results.json").is_file() for part in ("train_base", "test_new"))


def test_a_time_limit_in_mid_training(slurm, handed, undisturbed, tmp_path):
    """Slurm warns, the run saves itself, the job is queued again and ends what it began."""
    took = json.loads((folder_of(undisturbed[0], "train_base", 1) / "results.json").read_text())["train_seconds"]
    longer = str(round(int(EPOCHS) * 120 / took))  # of two at once: more than a minute alone
    # Slurm may warn half a minute early: 20 to 50 seconds after the start
    assert handed("--time", "2", "--warning", "70", epochs=longer)[0] == 0
    slurm.until(lambda: "Stopped by SIG" in logs(tmp_path), 120)
    assert not (folder_of(tmp_path, "train_base", 1) / "results.json").exists()
    for number in slurm.jobs():  # whose next limit is no matter of this test
        slurm.call("scontrol", "update", f"JobId={number}", "TimeLimit=60", check=False)
    slurm.until(lambda: not slurm.jobs(), 400, hurry=True)
    whole = tmp_path / "whole"
    assert protocol(None, whole, seeds="1", epochs=longer)[0] == 0
    assert_same_as((whole,), tmp_path, (1,))


def test_requeued_by_hand_and_by_itself_where_the_cluster_does_not(slurm, handed, undisturbed, tmp_path):
    """A configuration without RequeueExit: the job asks for it."""
    text = slurm.conf.read_text()
    slurm.conf.write_text(text.replace("RequeueExit=75", "RequeueExit=99"))
    slurm.call("scontrol", "reconfigure")

    def running():
        return next((number for number, state in slurm.jobs().items() if state == "RUNNING"), "")

    try:
        assert handed()[0] == 0
        slurm.until(lambda: training(tmp_path), 120)
        slurm.call("scontrol", "requeue", running())
        slurm.until(lambda: not running(), 60)
        slurm.until(lambda: running() and training(tmp_path, epochs=20), 240, hurry=True)
        slurm.call("scancel", "--signal=USR1", running())
        slurm.until(lambda: "Stopped by SIGUSR1" in logs(tmp_path), 30)
        slurm.until(lambda: not slurm.jobs(), 240, hurry=True)
    finally:
        slurm.conf.write_text(text)
        slurm.call("scontrol", "reconfigure")
    assert_same_as(undisturbed, tmp_path, (1,))


def test_killed_cancelled_and_asked_again(slurm, handed, undisturbed, tmp_path):
    """The job fails, what waits for it goes with it, the status says why, the same command goes on; as it does where the
    jobs were cancelled."""
    assert handed()[0] == 0
    slurm.until(lambda: training(tmp_path), 120)
    holder = (folder_of(tmp_path, "train_base", 1) / ".holder").read_text()
    os.kill(int(re.search(r"process (\d+)", holder)[1]), 9)
    slurm.until(lambda: not slurm.jobs(), 120)
    said = handed("--status")[1]
    assert re.search(r"^failed +\S+train_base\S+ +failed with status -9$", said, re.MULTILINE), said
    assert "2 runs: 0 finished, 0 queued before, 2 handed to Slurm" in handed()[1]
    slurm.until(lambda: training(tmp_path, epochs=20), 120)
    slurm.call("scancel", "--user=root")
    slurm.until(lambda: not slurm.jobs(), 120)
    assert not folder_of(tmp_path, "train_base", 1).joinpath("results.json").exists()
    status, said, error = handed("--wait")
    assert "2 runs: 0 finished, 0 queued before, 2 handed to Slurm" in said
    assert status == 0, error
    assert_same_as(undisturbed, tmp_path, (1,))


def test_the_controller_is_started_anew_in_between(slurm, handed, undisturbed, tmp_path):
    assert handed()[0] == 0
    slurm.until(lambda: training(tmp_path), 120)
    slurm.stop_controller()
    status, said, error = handed()
    assert status == 2
    assert error.startswith("error: Slurm refused: ")
    slurm.start_controller()
    slurm.until(lambda: "main" in slurm.call("sinfo", check=False), 120)
    status, said, error = handed("--wait")
    assert "queued before, 0 handed to Slurm" in said  # one may have finished without the controller
    assert status == 0, error
    assert_same_as(undisturbed, tmp_path, (1,))


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two tasks need two CPUs")
def test_ranks_that_srun_starts(slurm, tmp_path):
    """A task for each rank: status 75 and signals need no torchrun between."""
    words = ["--root", "data", "--seed", "1", "--trainer", "CoOp", "--dataset-config-file", "configs/datasets/demo.yaml",
             "--config-file", "configs/trainers/CoOp/small.yaml", "DATASET.NUM_SHOTS", "3", "OPTIM.MAX_EPOCH", "4",
             "TRAIN.PRINT_FREQ", "1", "INPUT.SEED_PER_PICTURE", "True", "DATALOADER.NUM_WORKERS", "0"]  # fmt: skip
    lines = {}
    for ranks in (1, 2):
        step = ["srun", f"--ntasks={ranks}", "--cpus-per-task=1"] if ranks > 1 else []
        command = [*step, sys.executable, "train.py", *words, "--output-dir", str(tmp_path / str(ranks))]
        done = subprocess.run(command, cwd=ROOT, env=slurm.env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        lines[ranks] = re.findall(r"^(epoch .*?\]) .*?(loss \S+ \S+ acc \S+)", done.stdout, re.MULTILINE)
    assert f"Rank 0 of {2}" in done.stdout
    assert len(lines[1]) == 8
    assert lines[2] == lines[1]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--partition", "nowhere"], "partition"),  # in the words of its release
        (["--time", "soon"], "--time"),
        (["--cpus", "many"], "cpus of a cluster's jobs is 'many'"),
        (["--pack", "0"], 'PACK is "0"'),
        (["--time", "2"], "a warning 120 seconds before the limit of 2 leaves no time"),
    ],
)
def test_what_slurm_does_not_take(slurm, handed, options, reason):
    status, _, error = handed(*options)
    assert status == 2
    assert error.startswith("error: ")
    assert reason in error
    assert len(error.splitlines()) == 1
    assert not slurm.jobs()
