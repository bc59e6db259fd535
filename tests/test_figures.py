"""What figures promise: circled points, names of panels, ranks, confusion matrices, files of every kind."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.report import page, plots
from harness.report.collect import Run, Tree, logs_of
from harness.report.confusions import confusion_figure, confusion_figures
from harness.report.critical import Ranking, critical_difference, ranking
from harness.report.left_by_runs import file_name
from harness.report.tables import Cell, Table, tables
from trainers.core.runs import confusion, mistakes
from trainers.core.runs.mistakes import Mistake


def circles(figure):
    """Points of one seed, by the mark that is drawn over them."""
    drawn = plots.OF_ONE_SEED["markersize"]
    return sum(len(line.get_xdata()) for axes in figure.axes for line in axes.lines if line.get_markersize() == drawn)


def legend_of(figure):
    (legend,) = figure.legends
    return legend.get_title().get_text()


def runs_of(protocol, values, part=""):
    """Runs of demo: method -> accuracies by seed."""
    return [
        Run(protocol, "demo", method, "small", 16, seed, part, Path(f"/x/{method}{seed}{part}"), {"accuracy": value})
        for method, own in values.items() for seed, value in enumerate(own, 1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "count", "promise"),
    [({"CoOp": [40, 42], "MoCoOp": [41]}, 1, "bars: ± standard deviation over 2 seeds; circled: one seed"),
     ({"CoOp": [40], "MoCoOp": [41]}, 2, "circled: one seed"),
     ({"CoOp": [40, 41, 42], "MoCoOp": [41, 42, 43]}, 0, "bars: ± standard deviation over 3 seeds")],
)  # fmt: skip
def test_what_is_said_to_be_circled_is_circled(values, count, promise):
    few = runs_of("fewshot", values) + [replace(run, shots=4) for run in runs_of("fewshot", values)]
    both = runs_of("base2new", values, "base") + runs_of("base2new", values, "new")
    drawn = dict(plots.figures(tables(few + both, "accuracy"), [], "accuracy"))
    for name, times in (("fewshot_Demo", 2), ("fewshot_most_shots", 1), ("base2new_scatter", 1)):
        assert circles(drawn[name]) == times * count, name
        assert legend_of(drawn[name]) == promise, name
    assert circles(drawn["base2new_h"]) == 0  # H of means has one value and no seed
    assert legend_of(drawn["base2new_h"]) == "one value each, no seeds"


def test_a_scatter_names_what_it_shows_and_every_method_of_any_panel():
    """Calibration errors have no harmonic mean, and a method may have been run on the second dataset alone."""
    runs = [
        replace(run, dataset=dataset, metrics={"accuracy": 40.0, "ece": 5.0 + run.seed})
        for dataset, methods in (("demo", ["MoCoOp"]), ("cifar10", ["MoCoOp", "CoOp"]))
        for part in ("base", "new") for run in runs_of("base2new", {m: [1, 2] for m in methods}, part)
    ]  # fmt: skip
    figure = dict(plots.figures(tables(runs, "ece"), [], "ece"))["base2new_scatter"]
    assert {axes.get_xlabel() for axes in figure.axes if axes.axison} == {"base calibration error, %"}
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"MoCoOp", "CoOp"}
    assert not any(text.get_text().startswith("H ") for axes in figure.axes for text in axes.texts)


def test_panels_of_training_curves_do_not_mix_settings(tmp_path):
    runs = []
    for config in ("small", "small tuned"):
        for seed in (1, 2):
            folder = tmp_path / config.replace(" ", "_") / str(seed)
            folder.mkdir(parents=True)
            step = "time 0.1 (0.1) data 0.0 (0.0) loss 1.0 (1.0) lr 1e-3 eta 0:00:00"
            (folder / "log.txt").write_text("".join(f"epoch [{e}/3] batch [1/1] {step}\n" for e in (1, 2, 3)))
            metrics = {"accuracy": 40.0}
            runs.append(Run("fewshot", "demo", "CoOp", config, 16, seed, "", folder / "results.json", metrics))
    ((name, figure),) = plots.training_curves(runs)
    assert name == "training_Demo"
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["CoOp small, 2 seeds", "CoOp small tuned, 2 seeds"]
    assert [len(axes.lines) for axes in figure.axes[:2]] == [2, 2]


def test_a_curve_of_a_run_that_was_stopped_has_all_its_epochs(tmp_path):
    step = "time 0.1 (0.1) data 0.0 (0.0) loss {0} ({0}) lr 1e-3 eta 0:00:00"
    for name, epochs in (("log.txt", (1, 2)), ("log.txt-2026-01-01-00-00-00", (2, 3))):
        lines = [f"epoch [{e}/3] batch [1/1] {step.format(e + len(name))}\n" for e in epochs]
        (tmp_path / name).write_text("".join(lines))
    assert plots.loss_curve(logs_of(tmp_path)).tolist() == [[1, 8], [2, 29], [3, 30]]


def test_federated_curves_are_of_finished_runs_with_the_same_settings(tmp_path):
    runs = []
    for config, shots, finished in (("small", 16, 40), ("small", 1, 20), ("small try", 16, 80), ("small", 16, None)):
        folder = tmp_path / str(len(runs))
        folder.mkdir()
        (folder / "rounds.csv").write_text(f"round,accuracy\n1,{finished or 99}\n")
        metrics = {"accuracy": finished} if finished else {}
        runs.append(Run("fewshot", "demo", "PromptFL", config, shots, len(runs), "", folder / "results.json", metrics))
    ((_, figure),) = plots.federated_curves(runs, plots.Looks)
    assert sorted(text.get_text() for text in figure.legends[0].get_texts()) == [
        "PromptFL (try), 16 shots", "PromptFL, 1 shot", "PromptFL, 16 shots"
    ]  # fmt: skip


def test_a_federations_figures_have_names_of_their_own_and_all_pictures_are_said():
    runs = [
        Run("fewshot", "demo", method, "small", shots, 1, "", Path(f"/x/{method}{shots}"), {"accuracy": 50.0})
        for method in ("CoOp", "PromptFL") for shots in (1, 4, -1)
    ]  # fmt: skip
    found = tables(runs, "accuracy")
    assert found[0].header[2:] == ["1 shot", "4 shots", "all pictures"]
    names = [name for name, _ in plots.figures(found, [], "accuracy")]
    assert len(names) == len({*names})
    assert {"fewshot_Demo", "fewshot_federated_Demo"} <= {*names}


def test_names_of_figures_are_their_own_and_fit():
    assert file_name("confusion Demo, MoCoOp") != file_name("confusion Demo, MoCoOp+")
    names = {file_name(f"{'ä' * 300}{i}") for i in range(3)}
    assert len(names) == 3
    assert all(len(name.encode()) <= 200 for name in names)


def test_figures_are_written_as_png_pdf_and_svg(tmp_path):
    drawn = plots.figures(
        tables(runs_of("fewshot", {"CoOp": [40, 42], "MoCoOp": [41, 43]}), "accuracy"), [], "accuracy"
    )
    plots.save(drawn, tmp_path)
    kinds = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}
    assert {path.suffix for path in tmp_path.iterdir()} == {*kinds}
    assert all(path.read_bytes().startswith(kinds[path.suffix]) for path in tmp_path.iterdir())


def ranked(values, best=max):
    rows = [([f"set {i}"], [Cell((v,)) if v is not None else Cell() for v in row]) for i, row in enumerate(values)]
    return Table("fewshot", "Few-shot", ["dataset", *"ABCDE"[: len(values[0])]], rows, [], best=best)


class TestCriticalDifference:
    def test_of_calibration_errors_the_smallest_is_best(self):
        values = {"CoOp": (20, 21), "LASP": (10, 11), "MoCoOp": (1, 2)}
        runs = [
            Run("fewshot", dataset, method, "small", 16, 1, "", Path("x"), {"accuracy": 50.0, "ece": value + i})
            for i, dataset in enumerate(("demo", "drawn", "cifar10"))
            for method, (value, _) in values.items()
        ]
        (table,) = tables(runs, "ece")
        assert ranking(plots._at_most_shots(table)).methods == ["MoCoOp", "LASP", "CoOp"]

    def test_where_friedman_finds_nothing_all_are_joined(self):
        found = Ranking(["A", "B", "C"], [1.0, 2.0, 3.0], 3, 0.5, 0.2)
        assert found.alike() == [(0, 2)]
        assert replace(found, p=0.01).alike() == []

    def test_the_published_example(self):
        """Demsar's table 6: C4.5, +m, +cf, +m+cf on fourteen data sets; ranks 3.143, 2.000, 2.893, 1.964, CD 1.25."""
        table = [
            (0.763, 0.768, 0.771, 0.798), (0.599, 0.591, 0.590, 0.569), (0.954, 0.971, 0.968, 0.967),
            (0.628, 0.661, 0.654, 0.657), (0.882, 0.888, 0.886, 0.898), (0.936, 0.931, 0.916, 0.931),
            (0.661, 0.668, 0.609, 0.685), (0.583, 0.583, 0.563, 0.625), (0.775, 0.838, 0.866, 0.875),
            (1.000, 1.000, 1.000, 1.000), (0.940, 0.962, 0.965, 0.962), (0.619, 0.666, 0.614, 0.669),
            (0.972, 0.981, 0.9751, 0.975), (0.957, 0.978, 0.946, 0.970),
        ]  # fmt: skip
        found = ranking(ranked(table))
        assert dict(zip(found.methods, found.ranks, strict=True)) == pytest.approx(
            {"A": 3.143, "B": 2.000, "C": 2.893, "D": 1.964}, abs=1e-3
        )
        assert found.n_datasets == 14
        assert found.distance == pytest.approx(1.25, abs=0.01)
        assert 0.01 < found.p < 0.05

    def test_what_cannot_be_told_apart_is_joined(self):
        clear = [(90 + i, 80 + i, 70 + i) for i in range(30)]
        assert ranking(ranked(clear)).alike() == []
        assert ranking(ranked(clear)).methods == ["A", "B", "C"]
        assert ranking(ranked(clear, best=min)).methods == ["C", "B", "A"]
        noise = [((i * 7) % 5, (i * 3) % 5, (i * 11) % 5) for i in range(5)]
        assert ranking(ranked(noise)).alike() == [(0, 2)]
        assert critical_difference(ranked(noise)).axes[0].get_title().endswith("%; Friedman p = 1)")

    def test_too_little_to_rank(self):
        assert ranking(ranked([(1, 2, 3), (1, 2, 3)])) is None
        assert critical_difference(ranked([(1, 2)] * 5)) is None
        some = ranked([(1, 2, 3, None), (2, 3, 1, None), (2, 1, 3, None), (1, 2, 3, 4), (3, None, 1, 2)])
        assert (ranking(some).methods, ranking(some).ranks) == (["C", "B", "A"], [1.5, 2.0, 2.5])
        averaged = ranked([(1, 2, 3)] * 3)
        averaged.rows.append((["average of 3"], [Cell((9,))] * 3))
        assert ranking(averaged).n_datasets == 3


def test_confusion_matrices(tmp_path):
    counts = Counter({("ant", "ant"): 8, ("ant", "bee"): 2, ("bee", "bee"): 5, ("bee", "ant"): 5})
    runs = []
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        confusion.write(folder, {(0, 0): 8, (0, 1): 2, (1, 1): 5, (1, 0): 5}, ["ant", "bee"])
        mistakes.write(folder, [Mistake("/gone.png", "ant", "bee", 0.9, 0.1)])
        details = {"total": 20}
        file = folder / "results.json"
        runs.append(Run("fewshot", "demo", "CoOp", "small", 16, seed, "", file, {"accuracy": 65.0}, details=details))
    ((name, figure),) = confusion_figures(runs)
    assert name == "confusion Demo, CoOp"
    axes = figure.axes[0]
    assert axes.get_title() == "Demo, CoOp, 16 shots, 2 seeds"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ant", "bee"]
    assert np.asarray(axes.images[0].get_array()).tolist() == [[80, 20], [50, 50]]
    many = Counter({(f"c{i:02}", f"c{(i + (i > 9)) % 60:02}"): 3 for i in range(60)})
    shown = confusion_figure(many, "many").axes[0]
    assert "the 40 of 60 classes with most mistakes" in shown.get_title()
    assert "c05" not in [label.get_text() for label in shown.get_xticklabels()]
    assert confusion_figure(counts, "two").axes[0].get_xlabel() == "taken for"
    drawn = list(plots.figures(tables(runs, "accuracy"), runs, "accuracy", per_class=True))
    assert "confusion_Demo_CoOp" in dict(drawn)
    text = page.page(Tree(runs, {}), tables(runs, "accuracy"), drawn, "t", "accuracy", "std", per_class=True)
    assert "is <b>ant</b>, taken for bee (90 %)" in text
    assert "Surest mistakes" not in page.page(Tree(runs, {}), [], [], "t", "accuracy", "std")
    assert json.dumps("Surest mistakes")[1:-1] in text
