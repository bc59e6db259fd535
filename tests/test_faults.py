"""What clusters do to runs, done for real: full and read-only disks, killed workers, no memory, pictures that vanish."""

import contextlib
import json
import os
import pty
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, patience, run_train
from test_resume import assert_same, outcome, words
from test_runs import fails
from torch.distributed import DistBackendError

from harness.data.prepare import PrepareError
from trainers.core.settings.errors import is_explained, one_line
from trainers.core.training import checkpoints


def in_small_disk(folder, size, command):
    """Runs a command with a small file system of its own at `folder` (no privileges needed where namespaces are allowed).

    Prints, after the command's own output, what lies on that disk, and leaves with its status.
    """
    script = (
        'mount -t tmpfs -o "$1" tmpfs "$2" && cd "$3" && shift 3 && "$@"; status=$?; find "$DISK" -type f; exit $status'
    )
    whole = ["unshare", "-rm", "sh", "-c", script, "sh", size, str(folder), str(ROOT), *map(str, command)]
    return subprocess.run(whole, capture_output=True, text=True, env=os.environ | {"DISK": str(folder)}, timeout=300)


@pytest.fixture(scope="module")
def own_disks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("disk")
    if shutil.which("unshare") is None or in_small_disk(folder, "size=1m", ["true"]).returncode:
        pytest.skip("this machine lets no process mount a file system of its own")


@pytest.fixture
def train_on_small_disk(own_disks, mini_root, tiny_clip_file, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()

    def train(size):
        command = words(mini_root, tiny_clip_file, disk / "run", "MoCoOp")
        return disk, in_small_disk(disk, size, [sys.executable, "train.py", *command])

    return train


def test_disk_full(train_on_small_disk):
    """It says so; the last complete checkpoint stays, and no part of another one."""
    disk, process = train_on_small_disk("size=140k")
    fails(process, "No space left on device", "make room")
    files = [line for line in process.stdout.splitlines() if line.startswith(str(disk))]
    assert any("model.pth.tar-" in f for f in files)
    assert not [f for f in files if "/." in f and ".lock" not in f]
    assert not any(f.endswith("results.json") for f in files)


def test_read_only_directory(train_on_small_disk):
    disk, process = train_on_small_disk("size=1m,ro")
    fails(process, "Read-only file system", str(disk), "choose another place")


def start(command):
    whole, pipe = [sys.executable, "train.py", *map(str, command)], subprocess.PIPE
    return subprocess.Popen(whole, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


def wait_for(process, text):
    return next(line for line in process.stdout if text in line)


def ended(process):
    out, err = process.communicate(timeout=patience(120))
    return subprocess.CompletedProcess([], process.returncode, out, err)


def workers_of(pid):
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # of a thread that has ended since
            found += map(int, task.read_text().split())
    return found


def test_a_killed_worker(mini_root, tiny_clip_file, tmp_path):
    command = words(mini_root, tiny_clip_file, tmp_path, "MoCoOp", "DATALOADER.NUM_WORKERS", 1, "OPTIM.MAX_EPOCH", 500)
    process = start(command)
    wait_for(process, "epoch [2/")
    while process.poll() is None:  # one that has delivered all its batches is not missed
        for worker in workers_of(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
    fails(ended(process), "a data-loading worker was killed", "DATALOADER.NUM_WORKERS")
    assert checkpoints.load(checkpoints.latest(tmp_path))


@pytest.mark.slow
def test_out_of_memory(mini_root, tiny_clip_file, tmp_path):
    """600 groups at once, computed plainly, need 2.5 GB; the process gets 300 MB more than it has after building."""
    groups = str([[f"a {i} of {{}}."] for i in range(600)])
    greedy = ("TRAINER.MOCOOP.TEMPLATE_GROUPS", groups, "MODEL.TEXT_ENCODER", "plain", "MODEL.TEXT_CHUNK", 10**6)
    process = start(words(mini_root, tiny_clip_file, tmp_path, "MoCoOp", *greedy, "DATALOADER.NUM_WORKERS", 0))
    wait_for(process, " parameters in fp32")
    limit = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") + 300 * 2**20
    resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))
    fails(ended(process), "out of memory", "MODEL.TEXT_CHUNK", "BATCH_SIZE")


def test_a_picture_that_vanishes_during_training(mini_root, tiny_clip_file, tmp_path):
    """The run names it; put back, the run goes on and ends as if nothing had been."""
    root = tmp_path / "data"
    shutil.copytree(mini_root / "caltech-101", root / "caltech-101", ignore=lambda d, f: {"split_fewshot"} & {*f})
    slow = ("DATALOADER.CACHE_MB", 0, "CACHE.LIMIT_MB", 0, "DATALOADER.NUM_WORKERS", 0)
    whole = run_train(*words(root, tiny_clip_file, tmp_path / "whole", "CoOp", *slow))
    assert whole.returncode == 0, whole.stderr
    process = start(words(root, tiny_clip_file, tmp_path / "run", "CoOp", *slow))
    wait_for(process, "epoch [2/")
    folder = root / "caltech-101" / "101_ObjectCategories" / "ant"
    folder.rename(tmp_path / "ant")
    fails(ended(process), 'class "ant") is missing: restore it')
    (tmp_path / "ant").rename(folder)
    done = run_train(*words(root, tiny_clip_file, tmp_path / "run", "CoOp", *slow))
    assert done.returncode == 0, done.stderr
    assert "will resume training" in done.stdout
    assert_same(outcome(tmp_path / "run"), outcome(tmp_path / "whole"))


def test_killed_while_writing_checkpoints(tmp_path):
    """SIGKILL at random moments of nothing but saving: what `checkpoint` names is always whole."""
    state = {"state_dict": {"ctx": torch.zeros(200_000)}, "epoch": 0}
    rng = random.Random(0)
    found = set()
    for kill in range(int(os.environ.get("KILLS", 25))):
        child = os.fork()
        if not child:
            for epoch in range(10_000):
                state["state_dict"]["ctx"].fill_(kill * 10_000 + epoch)
                checkpoints.save(tmp_path / "prompt_learner" / f"model.pth.tar-{epoch % 2}", state | {"epoch": epoch})
            os._exit(0)
        time.sleep(rng.uniform(0.02, 0.15))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        latest = checkpoints.latest(tmp_path)
        if latest is not None:
            found.add(float(checkpoints.load(latest)["state_dict"]["ctx"][0]))
    assert len(found) > 5


@pytest.mark.parametrize("delay", [0.005, *(pytest.param(other, marks=pytest.mark.slow) for other in (0.0, 0.02))])
def test_killed_while_evaluating(delay, mini_root, tiny_clip_file, tmp_path):
    """Either there is no result yet, or the whole result; started again, it ends the same."""
    command = words(mini_root, tiny_clip_file, tmp_path, "MoCoOp", "DATALOADER.TEST.BATCH_SIZE", 1)
    process = start(command)
    wait_for(process, "Evaluate on the *test* set")
    time.sleep(delay)
    process.kill()
    process.communicate()
    file = tmp_path / "results.json"
    early = json.loads(file.read_text())["accuracy"] if file.exists() else None
    done = run_train(*command)
    assert done.returncode == 0, done.stderr
    assert "epoch [" not in done.stdout
    assert early in (None, json.loads(file.read_text())["accuracy"])


@pytest.mark.parametrize("kind", [pty.openpty, os.pipe])
def test_a_screen_that_is_gone(kind, tmp_path):
    """A terminal goes away before its signal comes, or the other end of a pipe."""
    ours, theirs = kind()
    code = (
        "import sys\nfrom trainers.core.settings.screen import set_up_screen\nset_up_screen()\n"
        "print('begun')\nsys.stdin.read()\n"
        "for stream in (sys.stdout, sys.stderr):\n    print('seen by nobody', file=stream)\nopen(sys.argv[1], 'w').close()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "went_on")]
    # in a session of its own, to which that terminal sends nothing
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    assert b"begun" in os.read(ours, 4096)
    os.close(ours)
    process.communicate(timeout=patience(60))
    assert process.returncode == 0
    assert (tmp_path / "went_on").is_file()


def test_what_stands_in_for_the_screen_is_left_alone(tmp_path):
    """A file, or a stream whose `write` somebody has taken, as Flower does; what was printed before comes first."""
    code = (
        "import sys\nfrom trainers.core.settings.screen import set_up_screen\n"
        "print('first')\nset_up_screen()\nset_up_screen()\nprint('second')\n"
        "seen = []\nsys.stderr.write = seen.append\nsys.stdout = open(sys.argv[1], 'w')\n"
        "set_up_screen()\nprint('to the file')\nprint('taken', file=sys.stderr)\nassert seen == ['taken', '\\n']"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "file.txt")]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONUNBUFFERED": ""}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "first\nsecond\n"
    assert (tmp_path / "file.txt").read_text() == "to the file\n"


def test_what_a_killed_process_left_is_cleared_away(mini_root, tiny_clip_file, tmp_path):
    orphan = tmp_path / "prompt_learner" / ".model.pth.tar-3.12345"
    orphan.parent.mkdir()
    orphan.write_bytes(b"half a checkpoint")
    done = run_train(*words(mini_root, tiny_clip_file, tmp_path, "CoOp"))
    assert done.returncode == 0, done.stderr
    assert not orphan.exists()


@pytest.mark.parametrize(
    ("error", "explained", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True, "DATALOADER.TEST.BATCH_SIZE"),
        (torch.AcceleratorError("CUDA error: out of memory"), True, "set MODEL.TEXT_CHUNK"),
        (RuntimeError("NCCL: unhandled cuda error, Cuda failure 2 'out of memory'"), True, "set MODEL.TEXT_CHUNK"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True, "set MODEL.TEXT_CHUNK"),
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), False, "CUDA error: device-side assert"),
        (DistBackendError("NCCL error in: x.cpp:3690\nLast error:\nbroken"), False, "NCCL error in: x.cpp"),
        (RuntimeError("mat1 and mat2"), False, "mat1"),
        (PrepareError("a file is missing: fetch it"), True, "a file is missing: fetch it"),
    ],
)
def test_what_torch_alone_says_has_its_traceback(error, explained, said):
    assert is_explained(error) == explained
    assert said in one_line(error)
