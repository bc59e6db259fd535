"""What takes longer than anyone waits for: long fuzzing of trees, thousands of damaged checkpoints, many kills."""

import json
import math
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT
from test_identity import folder_of, one_run  # noqa: F401
from test_parse_results import LOG

from harness.report.collect import collect
from harness.report.gaps import gaps
from harness.report.tables import as_csv, as_json, paired, render, tables
from trainers.core.training import checkpoints

pytestmark = pytest.mark.slow

VALUES = [0, 1, -5, 99, 100, 1e9, 10**400, math.nan, math.inf, True, None, "x", "93.5", [], {}, [[1]], "\x00", 50.0]


def our_results(rng):
    correct = rng.randrange(0, 101)
    settings = {"OPTIM.LR": 0.1, "SEED": 1, "TEST.SPLIT": "test", "TRAINER.NAME": "CoOp"}
    return {
        "accuracy": float(correct), "error_rate": 100.0 - correct, "macro_f1": 1.0, "total": 100, "correct": correct,
        "trainer": "CoOp", "dataset": "DescribableTextures", "seed": 1, "shots": 16, "epochs": 2,
        "asked": {"split": "test"}, "identity": {"settings": settings, "backbone_sha256": "a", "data": {"test": "t"}},
    }  # fmt: skip


def believable(found):
    """This test's own idea of results that may be shown: the oracle, written apart from the reader."""
    if not isinstance(found, dict):
        return False

    def number(value):
        return type(value) in (int, float) and math.isfinite(float(value) if abs(value) < 1e300 else math.inf)

    for name in ("accuracy", "error_rate", "macro_f1"):
        if (name in found or name == "accuracy") and not (number(found.get(name)) and 0 <= found[name] <= 100):
            return False
    if "error_rate" in found and abs(found["accuracy"] + found["error_rate"] - 100) > 0.02:
        return False
    if "total" in found and "correct" in found:
        if any(type(found[name]) is not int or not 0 <= found[name] < 2**53 for name in ("total", "correct")):
            return False
        if found["total"] == 0:
            return False
        return abs(100 * found["correct"] / found["total"] - found["accuracy"]) <= 0.02
    return True


def test_ten_thousand_trees(tmp_path):
    """No traceback, and no cell whose values are not exactly those that its files' own figures confirm."""
    rng, right, wrong = random.Random(1), 0, 0
    for number in range(10_000):
        root = tmp_path / str(number % 50)
        shutil.rmtree(root, ignore_errors=True)
        truth = {}
        for seed in (1, 2):
            foreign = rng.random() < 0.4
            base = "dtd/CoOp/rn50_16shots" if foreign else "fewshot/dtd/shots_16/CoOp/a"
            folder = root / base / f"seed{seed}"
            folder.mkdir(parents=True)
            if foreign:
                correct = rng.randrange(0, 1001)
                text = LOG.format(trainer="CoOp", dataset="DescribableTextures", accuracy=f"{correct / 10:.1f}",
                                  correct=correct, error=100 - correct / 10)  # fmt: skip
                harm = rng.choice(["", "", "figure", "twice", "cut", "bytes"])
                if harm == "figure":
                    old = rng.choice([f"correct: {correct}", f"accuracy: {correct / 10:.1f}%"])
                    text = text.replace(old, old.split(":")[0] + rng.choice([": 1e9%", ": -5%", ": 2,000", ": nan%"]))
                elif harm == "twice":
                    text += text.replace(f"correct: {correct}", f"correct: {(correct + 500) % 1000}")
                elif harm == "cut":
                    text = text[: rng.randrange(len(text))]
                raw = text.encode()
                if harm == "bytes":
                    at = rng.randrange(len(raw))
                    raw = raw[:at] + rng.randbytes(3) + raw[at:]
                (folder / "log.txt").write_bytes(raw)
                truth[folder / "log.txt"] = correct / 10 if harm == "" else None
            else:
                found = our_results(rng)
                for _ in range(rng.randrange(0, 3)):
                    found[rng.choice([*found, "extra"])] = rng.choice(VALUES)
                content = json.dumps(found)
                if rng.random() < 0.1:
                    content = content[: rng.randrange(len(content))]
                    found = None
                (folder / "config.json").write_text("{}")
                (folder / "results.json").write_text(content)
                truth[folder / "results.json"] = found["accuracy"] if believable(found) else None
        tree = collect(root)
        made = tables(tree.runs, "accuracy")
        for table in [*made, *(paired(t, "CoOp") for t in made)]:
            for style in ("simple", "github", "latex"):
                render(table, style, rng.choice(["std", "ci95", "dassl_ci95"]))
        gaps(tree.runs)
        as_json(tree.runs)
        as_csv(made, "std")
        for table in made:
            for _, _, cell in table.filled():
                for value, file in zip(cell.values, cell.files, strict=False):
                    if truth.get(file) is not None and len(cell.files) == len(cell.values):
                        assert value == pytest.approx(truth[file])
        shown = {file for table in made for _, _, cell in table.filled() for file in cell.files}
        right += sum(value is not None for file, value in truth.items() if file in shown)
        wrong += sum(value is None for value in truth.values())
        for file in shown:
            if file.name == "results.json":
                assert truth[file] is not None, file.read_text()
    assert right > 4000  # what was not harmed is shown
    assert wrong > 4000


def test_three_thousand_damaged_checkpoints(one_run, tmp_path):  # noqa: F811
    source = folder_of(one_run[1]) / "prompt_learner" / "model.pth.tar-2"
    whole, raw = checkpoints.load(source), source.read_bytes()
    kept = checkpoints.digest_of(whole)
    rng = random.Random(2)
    path, accepted = tmp_path / "model.pth.tar-2", 0
    for number in range(3000):
        kind = number % 3
        if kind == 0:
            at = rng.randrange(len(raw))
            path.write_bytes(raw[:at] + bytes([raw[at] ^ (1 << rng.randrange(8))]) + raw[at + 1 :])
        elif kind == 1:
            path.write_bytes(raw[: rng.randrange(len(raw))])
        else:
            state = torch.load(source, weights_only=True)
            node, key = state, rng.choice([k for k in state if k != "digest"])
            while isinstance(node[key], dict) and node[key]:
                node, key = node[key], rng.choice(list(node[key]))
            value = node[key]
            if isinstance(value, torch.Tensor) and value.numel():
                value.view(-1)[rng.randrange(value.numel())] += 1
            else:
                node[key] = rng.choice([-1, 10**9, "other", None, [1], 0.5])
            torch.save(state, path)
        try:
            found = checkpoints.load(path)
        except ValueError:
            continue
        assert checkpoints.digest_of(found) == kept, number  # a bit of padding may have changed, nothing that is read
        accepted += 1
    assert accepted < 300


def test_twenty_kills_while_a_run_is_taken_over(one_run, tmp_path):  # noqa: F811
    words, out = one_run
    source = shutil.copytree(folder_of(out), tmp_path / "source")
    (source / "ballast").write_bytes(bytes(2**28))  # makes the copy long enough to be hit
    arguments = next(a for a in json.loads(subprocess.run(
        [sys.executable, "-c", "import json, sys; from harness.command import *; "
         "print(json.dumps([r.arguments for r in requested(parse_arguments(sys.argv[1:]))[0][0].runs()]))",
         *map(str, words)],
        capture_output=True, text=True, cwd=ROOT, check=True).stdout))  # fmt: skip
    target = tmp_path / "target"
    arguments[arguments.index("--output-dir") + 1] = str(target)
    command = [sys.executable, str(ROOT / "train.py"), *arguments, "--same-as", str(source)]
    rng, hit = random.Random(3), 0
    for number in range(20):
        shutil.rmtree(target, ignore_errors=True)
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not target.exists() and process.poll() is None:
            time.sleep(0.001)
        time.sleep(rng.random() * 0.4)
        process.send_signal(signal.SIGKILL)
        process.wait()
        hit += not (target / "results.json").exists()
        if number % 4 == 0 or not (target / "results.json").exists():
            again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            assert again.returncode == 0, again.stderr
        results, theirs = (json.loads((f / "results.json").read_text()) for f in (target, source))
        assert results["accuracy"] == theirs["accuracy"]
        name = "prompt_learner/model.pth.tar-2"
        ours, original = checkpoints.load(target / name), checkpoints.load(source / name)
        assert all(torch.equal(ours["state_dict"][k], v) for k, v in original["state_dict"].items())
    assert hit > 2
