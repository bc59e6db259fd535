"""The table that holds the small CLIP against what is known of CLIP."""

from dataclasses import replace
from pathlib import Path

from harness.report.collect import Run
from timings.yardstick import Measured, lines


def run(method, config, accuracy, part, shots: int | None = 16, seed: int | None = 1):
    return Run("base2new", "demo", method, config, shots, seed, part, Path("results.json"), {"accuracy": accuracy})


def test_only_runs_of_the_recipes_count():
    """A tag is a method of its own; another config, or other settings than the other seeds', is none."""
    runs = [
        run("CoOp", "small", 60.0, "base"),
        run("CoOp", "small", 62.0, "base", seed=2),
        run("CoOp", "small faster", 90.0, "base"),
        run("CoOp", "small_ep160", 99.0, "base"),
        replace(run("CoOp", "small", 99.0, "base", seed=3), apart="OPTIM.LR 0.5"),
        run("ZeroshotCLIP", "small", 50.0, "base", None, None),
        run("ZeroshotCLIP", "small", 50.0, "new", None, None),
    ]
    measured = Measured(runs, ["demo"])
    assert measured.at("base2new", "CoOp", "demo", part="base") == 61.0
    assert measured.at("base2new", "CoOp faster", "demo", part="base") == 90.0
    assert [r.variant for r in measured.left_out] == ["small_ep160", "small: OPTIM.LR 0.5"]
    table = {fact: cells for fact, *cells in lines(measured)}
    assert table["CoOp minus zero-shot, base"] == ["+13.4", "+11.0", "yes"]
    assert table["CoOp minus zero-shot, new"] == ["-11.0", "not measured", ""]
