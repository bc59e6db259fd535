"""scripts/compare.py: several methods on one folder, and the sentence at the end."""

import subprocess
import sys

import forked
import pytest
from conftest import ROOT, patience

from harness.compare import Row, row, verdict
from harness.report.collect import Run
from trainers.paths import version


def ran(accuracy, total=400, seconds=5.0):
    details = {"total": total, "seconds": seconds}
    return Run("fewshot", "mine", "CoOp", "a", 16, 1, "", ROOT, {"accuracy": accuracy}, details=details)


def test_the_interval_has_the_seeds_and_the_pictures():
    alone = row("coop", "CoOp", [ran(50)])
    assert alone.half == pytest.approx(1.96 * 2.5)  # 100 sqrt(0.5 0.5 / 400)
    several = row("coop", "CoOp", [ran(46), ran(50), ran(54)])
    assert several.half == pytest.approx((1.96**2 * 2.5**2 + 4.3027**2 * 16 / 3) ** 0.5, rel=1e-4)  # Student's
    assert (several.accuracy, several.seconds) == (50, 5)
    assert row("coop", "CoOp", [ran(100)]).half > 0  # of 400 right ones


def test_what_is_said_of_a_clear_case_and_of_noise():
    zero = Row("zsclip", "Zero-shot CLIP", 40, 2, 0)
    clear = verdict([zero, Row("coop", "CoOp", 50, 2, 60), Row("gda", "GDA", 60, 2, 2)], 2500, 4, 31.2)
    assert clear == (
        "GDA has the best accuracy, 60.0 %, and on 2,500 test pictures no other method comes near. Zero-shot CLIP, which "
        "trains nothing, has 40.0 %: 20.0 less. Guessing among 4 classes is right 25.0 % of the time, "
        "always saying the most frequent one 31.2 %."
    )
    noise = verdict([zero, Row("coop", "CoOp", 42, 4, 60), Row("gda", "GDA", 41, 4, 2)], 600, 10, 10.0)
    assert (
        "on 600 test pictures it cannot be told from GDA, Zero-shot CLIP. Of these, Zero-shot CLIP takes least" in noise
    )
    assert "within the noise of the best" in noise


def compare(*words):
    return forked.run(ROOT / "scripts" / "compare.py", *words, timeout=patience(200))


def test_a_folder_of_pictures(mini_root, literate_clip_file, tmp_path):
    folder = mini_root / "caltech-101" / "101_ObjectCategories"
    words = [folder, 2, "--methods", "zsclip,gda,coop", "--seeds", "1", "--cfg", "small", "--output", tmp_path]
    done = compare(*words, "MODEL.BACKBONE.NAME", literate_clip_file, "DATALOADER.NUM_WORKERS", "0")
    assert done.returncode == 0, done.stderr
    table = done.stdout[done.stdout.rindex("101_ObjectCategories, 2 shots") :]
    for title in ("Zero-shot CLIP", "GDA", "CoOp"):
        assert f"\n{title} " in table
    assert "has the best accuracy" in table
    assert "over test pictures." in table
    assert "With one seed, the luck of" in table
    assert "Guessing among 6 classes is right 16.7 %" in table


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["demo", "--methods", "coop"], '--methods is "coop": name two or more'),
        (["demo", "--methods", "coop,lsap"], 'method "lsap" is unknown; did you mean "lasp"?'),
        (["nowhere", "--methods", "coop,lasp"], '"nowhere" is no dataset'),
        (["demo", "16", "small", "--methods", "coop,lasp"], '"small" is one word too many'),
        (["demo,drawn", "--methods", "coop,lasp"], '"demo,drawn" is 2 datasets: compare.py takes one'),
        (["demo", "--methods", "coop,promptfl"], "promptfl is trained by clients, and each tests for itself"),
    ],
)
def test_what_makes_no_sense(words, said):
    done = compare(*words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {said}"), done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "program", ["scripts/run.py", "scripts/compare.py", "train.py", "parse_results.py", "predict.py", "export.py"]
)
def test_every_program_says_its_version(program):
    done = subprocess.run([sys.executable, str(ROOT / program), "--version"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"MoCoOp {version()}"
    assert f"## {version()}" in (ROOT / "CHANGELOG.md").read_text()
