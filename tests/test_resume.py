"""A run that is killed and started again ends bit for bit like one that was never interrupted."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT, run_train
from test_runs import arguments

from trainers.core.training import checkpoints
from trainers.core.training.stopping import RESUME_ME

EPOCHS = 5
KILLS = int(os.environ.get("KILLS", 2))  # per case, one of LATER; more by hand: KILLS=20 pytest -s tests/test_resume.py


def words(root, clip_file, out, trainer, *extra):
    found = [str(w) for w in arguments(root, clip_file, out, trainer)]
    found[found.index("OPTIM.MAX_EPOCH") + 1] = str(EPOCHS)
    found[found.index("DATALOADER.TRAIN_X.BATCH_SIZE") + 1] = "4"
    noise = {"MoCoOp": ["TRAINER.MOCOOP.TEXT_NOISE", "0.05"]}.get(trainer, [])
    return [*found, "TRAIN.CHECKPOINT_FREQ", "1", *noise, *map(str, extra)]


def outcome(out):
    """Trained tensors, accuracy and the losses of every step, whichever of the logs has them."""
    state = checkpoints.load(checkpoints.latest(out))
    lines = {}
    for log in sorted(out.glob("log.txt*"), key=lambda p: p.stat().st_mtime_ns):
        for where, losses in re.findall(r"^(epoch \[\S+ batch \[\S+) .*?(loss .*?) lr", log.read_text(), re.MULTILINE):
            lines[where] = losses
    return state["state_dict"], json.loads((out / "results.json").read_text())["accuracy"], lines


def interrupt(command, after_lines, number, delay, to_group=False):
    """Starts a run and sends a signal `delay` seconds after it has printed that many training lines; its status.

    to_group: send it to the data-loading workers too, as clusters and terminals do.
    """
    with subprocess.Popen(
        [sys.executable, "train.py", *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        seen = 0
        for line in process.stdout:
            seen += line.startswith("epoch [")
            if seen >= after_lines:
                break
        time.sleep(delay)
        os.killpg(process.pid, number) if to_group else process.send_signal(number)
        rest = process.stdout.read()
    return process.returncode, rest


@pytest.fixture(scope="module")
def uninterrupted(mini_root, tiny_clip_file, tmp_path_factory):
    done = {}

    def run(trainer, *extra):
        key = trainer, *extra
        if key not in done:
            out = tmp_path_factory.mktemp("whole")
            process = run_train(*words(mini_root, tiny_clip_file, out, trainer, *extra))
            assert process.returncode == 0, process.stderr
            done[key] = outcome(out)
        return done[key]

    return run


def assert_same(got, expected):
    for name, tensor in expected[0].items():
        assert torch.equal(got[0][name], tensor), name
    assert got[1] == expected[1]
    assert got[2] == expected[2]


LATER = pytest.mark.slow  # what differs least from the others
PIECES = {"MoCoOp pieces": ("TRAINER.MOCOOP.VISUAL_RANK", "1", "TRAINER.MOCOOP.CONDITIONAL", "True")}


@pytest.mark.parametrize(
    ("trainer", "workers"),
    [("MoCoOp", 1), ("CoCoOp", 1),
     *(pytest.param(name, workers, marks=LATER) for name, workers in (
         ("MoCoOp", 0), ("CoOp", 0), ("LASP", 0), ("CoOp", 1), ("CoCoOp", 0), ("LASP", 1), ("KgCoOp", 0), ("ProGrad", 0),
         ("IVLP", 0),
         ("MaPLe", 1), ("PromptSRC", 0), ("CLIPAdapter", 0), ("TCP", 0), ("CLIPLoRA", 0), ("TwoSFS", 0), ("MMRL", 0),
         ("PLOTPP", 1), ("DPL", 1), ("CLIPSVD", 0), ("CoPrompt", 1), ("MMRLpp", 0), ("TipAdapterF", 0), ("TipAdapterF", 1),
         ("MoCoOp pieces", 0)))],
)  # fmt: skip
def test_killed_and_started_again(trainer, workers, uninterrupted, mini_root, tiny_clip_file, tmp_path, request):
    """SIGKILL again and again, at random moments of training, checkpointing and evaluation."""
    extra = ("DATALOADER.NUM_WORKERS", str(workers), *PIECES.get(trainer, ()))
    trainer = trainer.split()[0]
    expected = uninterrupted(trainer, *extra)
    rng = random.Random(f"{trainer} {workers} {KILLS}")
    command = words(mini_root, tiny_clip_file, tmp_path, trainer, *extra)
    steps = len(expected[2])
    kills, most = 0, KILLS if "slow" not in request.keywords or KILLS > 2 else 1
    while kills < most and not (tmp_path / "results.json").exists():
        interrupt(command, rng.randint(1, steps // 3), signal.SIGKILL, rng.uniform(0, 0.03))
        kills += 1
    print(f"{kills} kills")
    process = run_train(*command)
    assert process.returncode == 0, process.stderr
    assert_same(outcome(tmp_path), expected)


@pytest.mark.parametrize(
    ("number", "workers"),
    [(signal.SIGTERM, 1), (signal.SIGUSR1, 0),
     *(pytest.param(number, workers, marks=LATER)
       for number, workers in ((signal.SIGTERM, 0), (signal.SIGUSR1, 1), (signal.SIGINT, 0), (signal.SIGINT, 1),
                                (signal.SIGHUP, 1)))],
)  # fmt: skip
def test_asked_to_stop(number, workers, uninterrupted, mini_root, tiny_clip_file, tmp_path):
    """The step ends, the place inside the epoch is saved, the status says "resume me"; resuming is exact."""
    extra = ("DATALOADER.NUM_WORKERS", str(workers))
    expected = uninterrupted("MoCoOp", *extra)
    command = words(mini_root, tiny_clip_file, tmp_path, "MoCoOp", *extra)
    status, said = interrupt(command, 8, number, 0.0, to_group=workers > 0)
    assert status == RESUME_ME, said
    assert "the same command continues this run" in said
    process = run_train(*command)
    assert process.returncode == 0, process.stderr
    assert "will resume training" in process.stdout
    assert_same(outcome(tmp_path), expected)
    assert not (tmp_path / "prompt_learner" / "model-interrupted.pth.tar").exists()


@LATER
@pytest.mark.parametrize("trainer", ["PLOTPP", "TwoSFS", "DPL"])
def test_stopped_in_its_second_stage(trainer, uninterrupted, mini_root, tiny_clip_file, tmp_path):
    """What the stage began with, as a new optimiser's momentum, is not begun again."""
    extra = ("DATALOADER.NUM_WORKERS", "0")
    expected = uninterrupted(trainer, *extra)
    command = words(mini_root, tiny_clip_file, tmp_path, trainer, *extra)
    status, said = interrupt(command, round(0.75 * len(expected[2])), signal.SIGTERM, 0.0)
    assert status == RESUME_ME, said
    process = run_train(*command)
    assert process.returncode == 0, process.stderr
    assert_same(outcome(tmp_path), expected)


def test_a_smaller_chunk_asked_for_on_resuming_is_used(mini_root, tiny_clip_file, tmp_path):
    """The way out of a lack of memory; otherwise a resumed run goes on with the chunk it began with."""
    command = words(mini_root, tiny_clip_file, tmp_path, "MoCoOp", "OPTIM.MAX_EPOCH", 2)
    interrupt(command, 4, signal.SIGTERM, 0.0)
    begun = checkpoints.load(checkpoints.latest(tmp_path))["text_chunk"]
    interrupt(command, 1, signal.SIGTERM, 0.0)
    assert checkpoints.load(checkpoints.latest(tmp_path))["text_chunk"] == begun > [3]
    process = run_train(*command, "MODEL.TEXT_CHUNK", "3")
    assert process.returncode == 0, process.stderr
    assert checkpoints.load(checkpoints.latest(tmp_path))["text_chunk"] == [3]


def test_killed_during_evaluation(uninterrupted, mini_root, tiny_clip_file, tmp_path):
    """Trained but not evaluated is not finished; started again, it only evaluates, and the time of both counts."""
    expected = uninterrupted("CoOp", "DATALOADER.NUM_WORKERS", "0")
    command = words(mini_root, tiny_clip_file, tmp_path, "CoOp", "DATALOADER.NUM_WORKERS", "0")
    process = run_train(*command)
    assert process.returncode == 0
    (tmp_path / "results.json").unlink()
    process = run_train(*command)
    assert process.returncode == 0, process.stderr
    assert "epoch [" not in process.stdout
    assert_same(outcome(tmp_path), expected)
    trained = checkpoints.load(checkpoints.latest(tmp_path))["seconds"]
    assert json.loads((tmp_path / "results.json").read_text())["seconds"] > trained > 0
    assert json.loads((tmp_path / "steps.jsonl").read_text().splitlines()[-1])["epoch"] == EPOCHS


def test_one_process_per_folder(mini_root, tiny_clip_file, tmp_path):
    """The second says who holds the folder; a dead process holds nothing."""
    command = words(mini_root, tiny_clip_file, tmp_path, "CoOp", "OPTIM.MAX_EPOCH", 1000)
    with subprocess.Popen([sys.executable, "train.py", *command], cwd=ROOT, stdout=subprocess.PIPE, text=True) as first:
        next(line for line in first.stdout if line.startswith("epoch ["))
        second = run_train(*command)
        first.kill()
    assert second.returncode == 1
    assert f"is in use by process {first.pid} on " in second.stderr
    after = run_train("--no-train", *command)
    assert after.returncode == 0, after.stderr


def test_infinite_loss_names_the_step_and_keeps_the_state(mini_root, tiny_clip_file, tmp_path):
    process = run_train(
        *words(mini_root, tiny_clip_file, tmp_path, "CoOp", "OPTIM.LR", "1e38", "OPTIM.WARMUP_EPOCH", "0")
    )
    assert process.returncode == 1
    assert re.search(r"error: loss is not finite at epoch \d+, batch \d+ \(loss nan.*lower OPTIM.LR", process.stderr)
    assert (tmp_path / "bad_step" / "state.pth.tar").is_file()
    assert not (tmp_path / "results.json").exists()


def test_random_states_survive_a_checkpoint(tmp_path):
    import numpy as np

    state = checkpoints.random_state()
    torch.save(state, tmp_path / "x.pt")
    drawn = random.random(), np.random.rand(), torch.rand(3), random.gauss(0, 1), np.random.randn()
    checkpoints.set_random_state(torch.load(tmp_path / "x.pt", weights_only=True))
    again = random.random(), np.random.rand(), torch.rand(3), random.gauss(0, 1), np.random.randn()
    assert drawn[:2] == again[:2]
    assert torch.equal(drawn[2], again[2])
    assert drawn[3:] == again[3:]
