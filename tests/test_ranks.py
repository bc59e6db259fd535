"""One training on several processes gives the numbers of one, stops as one, and says which rank died."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, patience, run_train
from test_resume import EPOCHS, outcome, words
from test_runs import arguments

from harness.launcher import environments
from trainers.core.clip.backbones.openai import ClipVocabulary
from trainers.core.clip.prompts import hard_plan
from trainers.core.ranks.collectives import Ranks, balanced
from trainers.core.ranks.process_group import _where_rank_0_is, started_as
from trainers.core.training import checkpoints
from trainers.core.training.stopping import RESUME_ME

PLAIN = ["INPUT.TRANSFORMS", '["normalize"]']
RANDOM = ["INPUT.TRANSFORMS", '["random_resized_crop", "random_flip", "normalize"]', "INPUT.SEED_PER_PICTURE", True]
CASES = {
    "MoCoOp": ["DATALOADER.TRAIN_X.BATCH_SIZE", 7, "TRAINER.MOCOOP.TEXT_NOISE", 0.05, *PLAIN],
    # three classes for up to four ranks, text in chunks, gradients clipped, augmentation per picture, the best epoch
    "MoCoOp base": ["DATASET.SUBSAMPLE_CLASSES", "base", "MODEL.TEXT_CHUNK", 2, "TRAINER.MOCOOP.GRAD_CLIP", 0.5,
                    "TRAINER.MOCOOP.TEXT_CLASSES", "train", "TEST.FINAL_MODEL", "best_val", *RANDOM],
    "MoCoOp head": ["MODEL.HEAD.NAME", "text_means", "TRAINER.MOCOOP.TEXT_LOSS", "anchor", *PLAIN],
    # a mixture whose experts have tokens in the picture tower, and contexts that follow the picture
    "MoCoOp pieces": ["DATALOADER.TRAIN_X.BATCH_SIZE", 5, "TRAINER.MOCOOP.VISUAL_TOKENS", [1, 2],
                      "TRAINER.MOCOOP.CONDITIONAL", True, *PLAIN],
    "LASP": ["TRAINER.LASP.N_GROUPS", 3, "DATALOADER.TRAIN_X.BATCH_SIZE", 5, *PLAIN],
    "CoOp": ["TRAINER.COOP.CTX_INIT", "a photo of a", "DATALOADER.TRAIN_X.BATCH_SIZE", 5, *PLAIN],
    # a context for each class, and a batch with fewer pictures than ranks
    "CoOp csc": ["TRAINER.COOP.CSC", True, "TRAINER.COOP.CTX_INIT", "", "TRAINER.COOP.N_CTX", 3,
                 "DATASET.SUBSAMPLE_CLASSES", "base", "DATASET.NUM_SHOTS", 1, *PLAIN],
    "CoCoOp": ["DATALOADER.TRAIN_X.BATCH_SIZE", 5, *RANDOM],
    # two losses (where the context is the template's words alone, rounding decides the guide's first direction); deep
    # prompts in both towers; teachers and an average over epochs
    "ProGrad": ["TRAINER.PROGRAD.N_CTX", 6, "DATALOADER.TRAIN_X.BATCH_SIZE", 5, *PLAIN],
    "MaPLe": ["DATALOADER.TRAIN_X.BATCH_SIZE", 5, *PLAIN],
    "PromptSRC": ["DATALOADER.TRAIN_X.BATCH_SIZE", 5, *PLAIN],
    # a search on validation pictures, of which each rank has a part; two views of each picture; matrices of both towers
    "DPL": ["DATALOADER.TRAIN_X.BATCH_SIZE", 5, "TRAINER.DPL.SEARCH_BATCH", 5, *PLAIN],
    "CoPrompt": ["DATALOADER.TRAIN_X.BATCH_SIZE", 5, *PLAIN],
    "CLIPSVD": ["DATALOADER.TRAIN_X.BATCH_SIZE", 5, *PLAIN],
    "CoCoOp one": ["DATALOADER.TRAIN_X.BATCH_SIZE", 1, "OPTIM.MAX_EPOCH", 2, *PLAIN],
}  # fmt: skip


def run_cases(cases, tmp_path):
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    process = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "run_ranks.py"), str(tmp_path / "cases.json")],
        cwd=ROOT, capture_output=True, text=True, timeout=patience(500), env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1]), process.stderr


def case_of(root, clip_file, out, name, ranks, double):
    given = [*words(root, clip_file, out, name.split()[0]), *map(str, CASES[name])]
    return {"ranks": ranks, "words": given, "double": double, "losses": str(out) + ".json"}


def what_came_out(case):
    out = Path(case["words"][case["words"].index("--output-dir") + 1])
    losses = json.loads(Path(case["losses"]).read_text())
    state = checkpoints.load(checkpoints.latest(out))
    results = json.loads((out / "results.json").read_text())
    metrics = {
        k: results[k] for k in ("accuracy", "macro_f1", "total", "correct", "ece", "temperature") if k in results
    }
    return losses, state["state_dict"], metrics


QUICK = ("MoCoOp base", "CoCoOp")
ODD = ("MoCoOp base", "LASP", "CoOp csc", "CoCoOp one")  # more ranks than classes, groups or pictures of a batch


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("MoCoOp base", (1, 3)),
     *(pytest.param(name, (1, 2, 3, 4) if name in ODD else (1, 3), marks=pytest.mark.slow) for name in CASES)],
)  # fmt: skip
def test_same_numbers_for_any_number_of_ranks(name, sizes, mini_root, tiny_clip_file, tmp_path):
    """In float64: what every step shows, what is learned, and all metrics, to 1e-9."""
    cases = [case_of(mini_root, tiny_clip_file, tmp_path / f"r{n}", name, n, True) for n in sizes]
    statuses, said = run_cases(cases, tmp_path)
    assert statuses == [[0] * n for n in sizes], said
    losses, learned, metrics = what_came_out(cases[0])
    assert len(losses) >= 5
    for case in cases[1:]:
        theirs = what_came_out(case)
        for step, (ours, found) in enumerate(zip(losses, theirs[0], strict=True)):
            assert found.pop("acc") == pytest.approx(ours["acc"], rel=1e-6)  # a float32
            assert found == pytest.approx({k: v for k, v in ours.items() if k != "acc"}, rel=1e-9, abs=1e-12), step
        for tensor in learned:
            torch.testing.assert_close(theirs[1][tensor], learned[tensor], rtol=1e-9, atol=1e-12)
        assert theirs[2] == metrics


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_in_single_precision_to_a_hundred_thousandth(name, mini_root, tiny_clip_file, tmp_path):
    cases = [case_of(mini_root, tiny_clip_file, tmp_path / f"r{n}", name, n, False) for n in (1, 3)]
    statuses, said = run_cases(cases, tmp_path)
    assert statuses == [[0], [0] * 3], said
    (ours, learned, metrics), theirs = map(what_came_out, cases)
    for mine, found in zip(ours, theirs[0], strict=True):
        assert found["loss"] == pytest.approx(mine["loss"], rel=1e-5)
    for tensor in learned:
        apart = (theirs[1][tensor] - learned[tensor]).norm() / learned[tensor].norm().clamp(min=1e-9)
        assert apart < 1e-5, tensor
    assert theirs[2] == pytest.approx(metrics, abs=1e-3)


class Group:
    """Ranks of one run, each a process of its own, as torchrun starts them."""

    def __init__(self, command, size):
        self.ranks = [
            subprocess.Popen(
                [sys.executable, "train.py", *command], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, env=os.environ | own,
            )
            for own in environments(size)
        ]  # fmt: skip

    def after_lines(self, count):
        seen = 0
        for line in self.ranks[0].stdout:
            seen += line.startswith("epoch [")
            if seen == count:
                return

    def end(self):
        said = [process.communicate(timeout=patience(60)) for process in self.ranks]
        return [p.returncode for p in self.ranks], "".join(out for out, _ in said), "".join(err for _, err in said)


ALONE = ["INPUT.SEED_PER_PICTURE", "True", "OPTIM.LR", "0.0005"]  # small steps, so that rounding stays rounding


@pytest.mark.parametrize(
    ("before", "after", "asked"),
    [(3, 1, 2), pytest.param(1, 2, 0, marks=pytest.mark.slow), pytest.param(2, 2, 1, marks=pytest.mark.slow)],
)
def test_stopped_by_a_signal_to_any_rank_and_continued_on_others(
    before, after, asked, mini_root, tiny_clip_file, tmp_path
):
    """All leave at the same step with status 75; the checkpoint knows nothing of the number of ranks."""
    whole, cut = (words(mini_root, tiny_clip_file, tmp_path / part, "MoCoOp", *ALONE) for part in ("whole", "cut"))
    assert run_train(*whole).returncode == 0
    group = Group(cut, before)
    group.after_lines(8)
    group.ranks[asked].send_signal(signal.SIGUSR1)
    statuses, said, errors = group.end()
    assert statuses == [RESUME_ME] * before, errors
    assert said.count("the same command continues this run") == 1
    state = checkpoints.load(checkpoints.latest(tmp_path / "cut"))
    assert state["epoch"] < EPOCHS
    statuses, said, errors = Group(cut, after).end()
    assert statuses == [0] * after, errors
    assert "will resume training" in said
    (tensors, accuracy, lines), (ours, own_accuracy, own_lines) = outcome(tmp_path / "cut"), outcome(tmp_path / "whole")
    assert own_accuracy == accuracy
    for name, tensor in ours.items():
        torch.testing.assert_close(tensors[name], tensor, rtol=1e-4, atol=1e-6)
    assert lines.keys() == own_lines.keys()


@pytest.mark.parametrize("victim", [2, pytest.param(0, marks=pytest.mark.slow)])
def test_a_rank_that_is_killed_ends_the_others_at_once(victim, mini_root, tiny_clip_file, tmp_path):
    command = words(mini_root, tiny_clip_file, tmp_path, "MoCoOp", "OPTIM.MAX_EPOCH", 1000)
    group = Group(command, 3)
    group.after_lines(8)
    begin = time.monotonic()
    group.ranks[victim].kill()
    statuses, _, errors = group.end()
    assert time.monotonic() - begin < patience(5)
    assert statuses == [-signal.SIGKILL if rank == victim else 1 for rank in range(3)]
    told = [line for line in errors.splitlines() if line.startswith("error: ")]  # torch itself warns of some networks
    (line,) = told
    assert re.fullmatch(rf"error: rank {victim} \(process \d+ on \S+\) died; the same command continues this run", line)
    assert checkpoints.load(checkpoints.latest(tmp_path))["epoch"] > 0


@pytest.mark.slow
def test_an_error_of_one_rank_is_said_once(mini_root, tiny_clip_file, tmp_path):
    """A picture that the second of two ranks reads alone, and settings that all of them are told wrongly."""
    root = shutil.copytree(mini_root, tmp_path / "data")
    test = sorted((root / "caltech-101" / "101_ObjectCategories").glob("*/test_*.jpg"))
    test[-1].write_bytes(b"no picture")
    command = words(root, tiny_clip_file, tmp_path / "out", "CoOp", "DATALOADER.TEST.BATCH_SIZE", 12)
    statuses, _, errors = Group(command, 2).end()
    assert statuses == [1, 1]
    lines = [line for line in errors.splitlines() if "error:" in line]
    assert len(lines) == 1, errors
    assert lines[0].startswith("error: rank 1: ")
    assert test[-1].name in lines[0]
    statuses, _, errors = Group([*command[:-1], "0"], 2).end()
    assert statuses == [1, 1]
    ours, theirs = errors.splitlines()  # nobody knows yet that it goes wrong for both
    assert ours.startswith("error: DATALOADER.TEST.BATCH_SIZE is 0")
    assert theirs == ours.replace("error: ", "error: rank 1: ")


@pytest.mark.parametrize("trainer", ["ZeroshotCLIP", "LinearProbe"])
@pytest.mark.slow
def test_methods_without_steps(trainer, mini_root, tiny_clip_file, tmp_path):
    """Each rank has some of the batches; all of Dassl's metrics are those of one process."""
    for size in (1, 3):
        command = arguments(mini_root, tiny_clip_file, tmp_path / str(size), trainer, "DATALOADER.TEST.BATCH_SIZE", 5)
        statuses, _, errors = Group([str(word) for word in command], size).end()
        assert statuses == [0] * size, errors
    one, three = (json.loads((tmp_path / n / "results.json").read_text()) for n in ("1", "3"))
    for name in ("accuracy", "macro_f1", "total", "correct", "ece"):
        assert one[name] == three[name], name


def test_words_that_start_ranks():
    assert started_as({}) == (0, 1, 0)
    assert started_as({"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}) == (2, 4, 0)
    batch_script = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}
    assert started_as(batch_script) == (0, 1, 0)
    step = {
        "SLURM_PROCID": "3",
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_LOCALID": "1",
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_ID": "1",
    }
    assert started_as(step) == (3, 4, 1)
    hosts = {"gpu[03-07,9]": "gpu03", "a1": "a1", "n1,n2": "n1", "rack[2]-ib": "rack2-ib"}
    for listed, first in hosts.items():
        found = _where_rank_0_is(step | {"SLURM_STEP_NODELIST": listed})
        assert found == {"MASTER_ADDR": first, "MASTER_PORT": str(20000 + 7 * 37 + 1)}
    for wrong in ({"RANK": "4", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}, {"RANK": "x", "WORLD_SIZE": "2"}):
        with pytest.raises(ValueError, match="start several ranks with torchrun or srun"):
            started_as(wrong)


def test_shares_are_balanced_by_tokens():
    assert balanced([1] * 8, 4) == [0, 2, 4, 6, 8]
    assert balanced([9, 1, 1, 1], 2) == [0, 1, 4]
    assert len(balanced([1, 1], 4)) == 5
    names = ["dog", "a very long name for a dog of which nobody has heard", "cat", "horse", "ant"]
    plan = hard_plan(["a photo of a {}.", "{} art."], names, ClipVocabulary())
    along, places = plan.cuts(2)
    assert along == "classes"
    shares = [plan.share(number, 2) for number in range(2)]
    assert sum(share.C for share in shares) == 5
    tokens = [share.n_tokens for share in shares]
    assert max(tokens) - min(tokens) <= 2 * 13, (tokens, places)
    pictures = [Ranks(rank, 3).slice_of(7) for rank in range(3)]
    assert [i for part in pictures for i in range(7)[part]] == list(range(7))
