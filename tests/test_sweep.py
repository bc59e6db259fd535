"""Protocols with warm workers and caches: the numbers of runs that start alone and keep nothing; faults take one run."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT, patience

from harness.plan import Job, Request, to_do
from harness.progress import Progress
from harness.runner import Runner
from trainers.core.training import checkpoints

METHODS = "zsclip,coop,cocoop,lasp,mocoop"


@pytest.fixture(scope="module")
def words(mini_root, tiny_clip_file):
    return [
        "--data", mini_root, "--cfg", "small", "--shots", "2", "--seeds", "1", "--no-table", "MODEL.BACKBONE.NAME",
        tiny_clip_file, "OPTIM.MAX_EPOCH", "2", "DATALOADER.TRAIN_X.BATCH_SIZE", "4", "TRAIN.PRINT_FREQ", "1",
        "DATALOADER.NUM_WORKERS", "0",
    ]  # fmt: skip


def start(*words, **environment):
    command = [sys.executable, str(ROOT / "scripts" / "run.py"), *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)  # fmt: skip


def protocol(*words, **environment):
    process = start(*words, **environment)
    printed, _ = process.communicate(timeout=300)
    return process.returncode, printed


def outcome(output):
    """Of every run: metrics, printed losses, trained tensors and random numbers after training."""
    found = {}
    for file in sorted(Path(output).rglob("results.json")):
        results = json.loads(file.read_text())
        keys = ("accuracy", "macro_f1", "ece", "total", "correct", "temperature")
        lines = [line for line in (file.parent / "log.txt").read_text().split("\n") if line.startswith("epoch [")]
        losses = [re.sub(r" time .*?(?= loss)| eta .*", "", line) for line in lines]
        states = [checkpoints.load(path) for path in (file.parent / checkpoints.FOLDER).glob("model*")]
        kept = [(s["state_dict"], s["random"]["torch"]) for s in states]
        found[str(file.parent.relative_to(output))] = [results.get(key) for key in keys], losses, kept
    return found


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for run, (metrics, losses, kept) in ours.items():
        assert (metrics, losses) == theirs[run][:2], run
        for (tensors, generator), (their_tensors, their_generator) in zip(kept, theirs[run][2], strict=True):
            assert torch.equal(generator, their_generator), run
            assert all(torch.equal(tensor, their_tensors[name]) for name, tensor in tensors.items()), run


@pytest.fixture(scope="module")
def alone(words, tmp_path_factory):
    """Every method's base-to-new, each run in a Python of its own, nothing kept."""
    out = tmp_path_factory.mktemp("alone")
    status, printed = protocol(METHODS, "base2new", "caltech101", *words, "--jobs", "2", "--output", out, "CACHE.LIMIT_MB",
                               "0", MOCOOP_COLD="1")  # fmt: skip
    assert status == 0, printed
    return outcome(out)


@pytest.mark.slow
def test_warm_workers_and_caches_change_no_number(alone, words, tmp_path):
    """With caches that are empty, full, and damaged; one run at a time and two."""
    cache = tmp_path / "cache"
    for state, jobs in (("empty", "2"), ("full", "1"), ("damaged", "2")):
        if state == "damaged":
            for file in cache.glob("*/*/arrays"):
                content = bytearray(file.read_bytes())
                content[:: max(1, len(content) // 50)] = b"\x55" * len(content[:: max(1, len(content) // 50)])
                file.write_bytes(content)
        status, printed = protocol(METHODS, "base2new", "caltech101", *words, "--jobs", jobs, "--output", tmp_path / state,
                                   MOCOOP_CACHE=str(cache))  # fmt: skip
        assert status == 0, printed
        assert re.search(r"9 of 10 runs done, \d running, \d left: until about \d\d:\d\d \(\d+ s\)", printed), printed
        assert_same(outcome(tmp_path / state), alone)
    log = (next((tmp_path / "empty").rglob("log.txt"))).read_text()
    assert "Kept for other runs" in log
    assert "damaged and made again" in "".join(f.read_text() for f in (tmp_path / "damaged").rglob("log.txt"))


LONG = ["OPTIM.MAX_EPOCH", "100", "TRAIN.CHECKPOINT_FREQ", "5"]


def running(output, count=1, patience=60.0):
    """The process ids of runs that have saved themselves for the first time."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        logs = [log for log in Path(output).rglob("log.txt") if "Checkpoint saved" in log.read_text()]
        if len(logs) >= count:
            return [int((log.parent / ".holder").read_text().split()[1]) for log in logs]
        time.sleep(0.05)
    raise TimeoutError("no run began")


def test_asked_to_stop_and_called_again(words, tmp_path):
    """Exactly as if nothing had been, as test_resume.py shows."""
    call = ("coop", "main", "caltech101", *words, "--output", tmp_path, *LONG)
    process = start(*call)
    running(tmp_path)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=patience(60))
    assert process.returncode == 75, printed
    assert "stopped; the same command continues it" in printed
    (log,) = tmp_path.rglob("log.txt")
    assert "Stopped by SIGINT; the same command continues this run" in log.read_text()  # and by nothing else
    status, printed = protocol(*call)
    assert status == 0, printed
    assert "Found checkpoint at" in "".join(log.read_text() for log in tmp_path.rglob("log.txt*"))
    assert len(outcome(tmp_path)) == 1


@pytest.mark.parametrize("seeds", ["1", "1 2"])  # a run that prints for itself, and runs that are read
def test_what_is_printed_need_not_be_read(words, tmp_path, seeds):
    """As by `| head -1`."""
    process = start("coop", "main", "caltech101", *words, "--seeds", seeds, "--output", tmp_path)
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait(patience(120)) == 0
    logs = [log.read_text() for log in tmp_path.rglob("log.txt")]
    assert len(logs) == len(seeds.split())
    assert all("epoch [2/2]" in log and "* accuracy: " in log for log in logs)


@pytest.mark.slow
def test_runs_that_nobody_reads_end_with_the_script(words, tmp_path):
    call = ("coop", "main", "caltech101", *words, "--output", tmp_path, "--jobs", "2", "--seeds", "1 2", *LONG)
    process = start(*call)
    runs = running(tmp_path, 2)
    process.kill()
    process.communicate()
    end = time.monotonic() + patience(60)
    while any(Path(f"/proc/{run}").exists() for run in runs):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert not list(tmp_path.rglob("results.json"))


@pytest.mark.slow
def test_a_terminal_that_is_closed_stops_the_runs(words, tmp_path):
    call = ["coop", "main", "caltech101", *words, "--output", tmp_path, *LONG]
    process, terminal = pty.fork()
    if not process:
        os.execv(sys.executable, [sys.executable, str(ROOT / "scripts" / "run.py"), *map(str, call)])
    closing = threading.Event()
    reading = threading.Thread(target=read_until, args=(terminal, closing), daemon=True)
    reading.start()
    running(tmp_path)
    closing.set()
    reading.join()
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 75
    (log,) = tmp_path.rglob("log.txt")
    assert "Stopped by SIGHUP; the same command continues this run" in log.read_text()


def read_until(terminal, closing):
    while not closing.is_set():
        if select.select([terminal], [], [], 0.1)[0]:
            os.read(terminal, 4096)


@pytest.mark.slow
def test_under_nohup_a_closed_terminal_stops_nothing(words, tmp_path):
    call = ["coop", "main", "caltech101", *words, "--output", tmp_path, *LONG]
    command = ["nohup", sys.executable, str(ROOT / "scripts" / "run.py"), *map(str, call)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    (run,) = running(tmp_path)
    for number in (process.pid, run):
        os.kill(number, signal.SIGHUP)
    printed, _ = process.communicate(timeout=patience(200))
    assert process.returncode == 0, printed


@pytest.mark.slow
def test_a_crash_takes_one_run_with_it(words, tmp_path):
    """Killed: that run fails, the others end; called again, it goes on."""
    call = ("coop", "main", "caltech101", *words, "--output", tmp_path, "--jobs", "2", "--seeds", "1 2 3", *LONG)
    process = start(*call)
    os.kill(running(tmp_path)[0], signal.SIGKILL)
    printed, _ = process.communicate(timeout=patience(200))
    assert process.returncode == 1, printed
    assert printed.count("failed with status -9") == 2  # when it happens, and at the end
    assert len(list(tmp_path.rglob("results.json"))) == 2
    status, printed = protocol(*call)
    assert status == 0, printed
    assert "Found checkpoint at" in "".join(log.read_text() for log in tmp_path.rglob("log*.txt*"))


@pytest.mark.slow
def test_the_process_that_runs_are_forked_from_dies(words, tmp_path):
    """What was running is lost sight of, what comes after is forked from a new one."""
    call = ("coop", "main", "caltech101", *words, "--output", tmp_path, "--seeds", "1 2", *LONG)
    process = start(*call)
    run = running(tmp_path)[0]
    parent = int(Path(f"/proc/{run}/stat").read_text().rsplit(")", 1)[1].split()[1])
    os.kill(parent, signal.SIGKILL)
    os.kill(run, signal.SIGKILL)
    printed, _ = process.communicate(timeout=patience(200))
    assert process.returncode == 1, printed
    assert "failed with status 255" in printed
    assert len(list(tmp_path.rglob("results.json"))) == 1
    assert "Traceback" not in printed
    assert protocol(*call)[0] == 0


def test_a_wrong_run_says_what_is_wrong(words, tmp_path):
    status, printed = protocol("coop", "main", "caltech101", *words, "--output", tmp_path, "INPUT.SIZE", "(64, 64)")
    assert status == 1
    assert "error: INPUT.SIZE is (64, 64), but this CLIP takes 32 x 32 pixels" in printed.splitlines()[-1], printed
    assert "Traceback" not in printed


def test_several_methods_are_one_table(words, tmp_path):
    words = [word for word in words if word != "--no-table"]
    status, printed = protocol("zsclip,coop", "main", "caltech101", *words, "--output", tmp_path)
    assert status == 0, printed
    assert "Zero-shot CLIP" in printed
    assert re.search(r"^ +CoOp ", printed, re.M), printed
    assert "epoch [" not in printed
    assert [line[9:].split(" finished in")[0] for line in printed.splitlines() if " finished in" in line] == [
        f"{tmp_path}/fewshot/caltech101/ZeroshotCLIP/small:",
        f"{tmp_path}/fewshot/caltech101/shots_2/CoOp/small/seed1:",
    ]
    status, printed = protocol(
        "coop", "main", "caltech101", *words, "--seeds", "2 3", "--verbose", "--output", tmp_path
    )
    assert printed.count("epoch [2/2]") >= 2  # each of several shows what it prints
    status, printed = protocol("zsclip,cop", "main", "caltech101", *words, "--output", tmp_path)
    assert status == 2
    assert 'method "cop" is unknown; did you mean "coop"?' in printed


def test_what_needs_a_run_that_is_made_anew_is_looked_at_again(tmp_path):
    """Its own result may be of the model before."""

    class Known(Job):
        finished = property(lambda self: self.folder.name in ("whole", "tested"))

    base, whole = Known(tmp_path / "base", []), Known(tmp_path / "whole", [])
    tested, fresh = Known(tmp_path / "tested", [], base), Known(tmp_path / "fresh", [], whole)
    assert [run.folder.name for run in to_do([base, whole, tested, fresh])] == ["base", "tested", "fresh"]
    tested = Known(tmp_path / "tested", [], whole)
    assert [run.folder.name for run in to_do([base, whole, tested])] == ["base"]


def test_a_run_that_cannot_be_started_does_not_end_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.runner.on_stop_signals", lambda handler: {})  # pytest keeps its own

    class Starter:
        def start(self, *_):
            raise OSError(24, "Too many open files")

    runs = [Job(tmp_path / name, []) for name in "ab"]
    Runner(runs, Starter(), 1, []).go()
    assert {run.status for run in runs} == {"could not be started: [Errno 24] Too many open files"}


def test_a_command_to_repeat_finds_the_pictures(tmp_path, monkeypatch):
    """It is repeated in the project's folder, wherever it was typed."""
    (tmp_path / "pics").mkdir()
    monkeypatch.chdir(tmp_path)
    request = Request("coop", "main", ["pics", "4"])
    assert f"bash scripts/coop/main.sh {tmp_path}/pics 4" in request.command(1, 4)
    assert "bash scripts/coop/main.sh demo 4" in replace(request, words=["demo", "4"]).command(1, 4)
    (tmp_path / "small").mkdir()
    assert "main.sh small 4" in replace(request, words=["small", "4"]).command(1, 4)  # the benchmarks, as it was meant
    assert f"main.sh demo,{tmp_path}/pics 4" in replace(request, words=["demo,pics", "4"]).command(1, 4)


def test_when_it_will_end():
    now = 0.0
    progress = Progress({"a1": "a", "a2": "a", "b1": "b", "b2": "b"}, 1, now=lambda: now)
    assert progress.seconds_left() is None
    assert progress.line() == "0 of 4 runs done, 0 running, 4 left"
    progress.begin("a1")
    now = 10.0
    progress.end("a1")
    assert progress.seconds_left() == 30  # others are expected to take as long
    progress.begin("b1")
    now = 11.0
    progress.end("b1", counts=False)  # failed: nothing is learned from it
    assert progress.seconds_left() == 20
    progress.begin("b2")
    now = 15.0
    assert progress.seconds_left() == 16  # four of its ten seconds are over
    assert re.fullmatch(r"2 of 4 runs done, 1 running, 1 left: until about \d\d:\d\d \(16 s\)", progress.line())
