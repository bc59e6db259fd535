"""Tables from trees of runs: ours, and those that CoOp, CoCoOp, LASP and MaPLe write."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, patience
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from harness.catalog import group
from harness.report.collect import Run, collect, progress_of_log
from harness.report.command import main
from harness.report.gaps import gaps
from harness.report.per_class import per_class_tables
from harness.report.plots import Looks
from harness.report.published import FILE, published_tables
from harness.report.tables import (
    Cell,
    Table,
    as_csv,
    base_to_new_table,
    few_shot_table,
    harmonic,
    paired,
    render,
    tables,
    transfer_table,
)
from harness.report.uses import signs
from harness.report.watch import live_view
from trainers.core.runs import confusion
from trainers.core.runs.identity import fingerprint
from trainers.methods import methods

LOG = """** Arguments **
trainer: {trainer}
Loading trainer: {trainer}
Loading dataset: {dataset}
epoch [50/50] batch [5/5] time 0.079 (0.118) data 0.000 (0.037) loss 0.6394 (0.5167) lr 1.9791e-04 eta 0:00:00
Checkpoint saved to x
Finish training
Evaluate on the *test* set
=> result
* total: 1,000
* correct: {correct}
* accuracy: {accuracy}%
* error: {error:.1f}%
* macro_f1: 80.6%
Elapsed: 0:01:07
"""


def ours(root, path, **values):
    folder = root / path
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "results.json").write_text(
        json.dumps({"macro_f1": 1.0, "error_rate": 100 - values["accuracy"], **values})
    )


def theirs(root, path, accuracy, trainer="CoOp", dataset="Caltech101", name="log.txt", **changes):
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    text = LOG.format(
        trainer=trainer, dataset=dataset, accuracy=accuracy, correct=round(10 * accuracy), error=100 - accuracy
    )
    for old, new in changes.items():
        text = text.replace(old.replace("_", " "), new)
    (folder / name).write_text(text)


def test_base_to_new_as_the_papers_compute_it(tmp_path):
    numbers = {"caltech101": ([98, 96], [94, 92]), "eurosat": ([90, 92], [50, 60])}
    for dataset, (base, new) in numbers.items():
        for seed, (b, n) in enumerate(zip(base, new, strict=True), 1):
            end = f"{dataset}/shots_16/MoCoOp/vit/seed{seed}"
            ours(tmp_path, f"base2new/train_base/{end}", accuracy=b, trainer="MoCoOp")
            ours(tmp_path, f"base2new/test_new/{end}", accuracy=n, trainer="MoCoOp")
    table = base_to_new_table(collect(tmp_path).runs, "accuracy")
    rows = {labels[0]: [cell.mean for cell in cells] for labels, cells in table.rows}
    assert rows["Caltech101"] == [97, 93, pytest.approx(harmonic(97, 93))]
    assert rows["EuroSAT"] == [91, 55, pytest.approx(harmonic(91, 55))]
    assert rows["average of 2"] == [94, 74, pytest.approx(harmonic(94, 74))]
    mean_of_h = (harmonic(97, 93) + harmonic(91, 55)) / 2
    assert f"Mean of the datasets' H: MoCoOp {mean_of_h:.2f}." in table.notes
    text = render(table, "github")
    assert "97.00 ± 1.00" in text


def test_few_shot_methods_side_by_side(tmp_path):
    for method, values in {"CoOp": (70, 72, 74), "MoCoOp": (80, 80, 80)}.items():
        for shots, plus in ((1, 0), (16, 5)):
            for seed, value in enumerate(values, 1):
                ours(
                    tmp_path, f"fewshot/dtd/shots_{shots}/{method}/a/seed{seed}", accuracy=value + plus, trainer=method
                )
    text = render(few_shot_table(collect(tmp_path).runs, "accuracy"), "github")
    assert "72.00 ± 1.63" in text  # numpy's standard deviation, as CoOp's parser prints
    assert "**80.00 ± 0.00**" in text
    assert "**85.00 ± 0.00**" in text
    assert "1 shot " in text


def test_cross_dataset_leaves_the_source_out_of_the_average(tmp_path):
    ours(tmp_path, "xd/from_imagenet/train/imagenet/shots_16/CoOp/a/seed1", accuracy=71, trainer="CoOp")
    for dataset, value in (("dtd", 40), ("eurosat", 50)):
        ours(tmp_path, f"xd/from_imagenet/test/{dataset}/shots_16/CoOp/a/seed1", accuracy=value, trainer="CoOp")
    table = transfer_table(collect(tmp_path).runs, "accuracy", "xd")
    assert [(labels[0], cells[0].mean) for labels, cells in table.rows] == [
        ("ImageNet (source)", 71), ("DTD", 40), ("EuroSAT", 50), ("average of 2", 45),
    ]  # fmt: skip


def test_foreign_trees(tmp_path):
    theirs(tmp_path, "caltech101/CoOp/rn50_16shots/nctx16_cscFalse_ctpend/seed1", 91.5)
    theirs(tmp_path, "base2new/train_base/eurosat/shots_16/CoCoOp/vit_b16/seed2", 87.1, "CoCoOp", "EuroSAT")
    theirs(tmp_path, "base2new/test_new/eurosat/shots_16/CoCoOp/vit_b16/seed2", 60.0, "CoCoOp", "EuroSAT")
    theirs(tmp_path, "base2new/train_base/dtd/shots_16/LASP/vit/seed1_x", 80.6, "LASP", "DescribableTextures")
    theirs(tmp_path, "evaluation/MaPLe/vit_16shots/imagenet_a/seed3", 50.9, "MaPLe", "ImageNetA")
    theirs(tmp_path, "evaluation/MaPLe/vit_16shots/dtd/seed3", 46.5, "MaPLe", "DescribableTextures")
    runs = {
        (r.protocol, r.dataset, r.method, r.part, r.seed, r.shots): r.metrics["accuracy"]
        for r in collect(tmp_path).runs
    }
    assert runs == {
        ("fewshot", "caltech101", "CoOp", "", 1, 16): 91.5,
        ("base2new", "eurosat", "CoCoOp", "base", 2, 16): 87.1,
        ("base2new", "eurosat", "CoCoOp", "new", 2, 16): 60.0,
        ("base2new", "dtd", "LASP", "base", 1, 16): 80.6,
        ("dg", "imagenet_a", "MaPLe", "imagenet_a", 3, 16): 50.9,
        ("xd", "dtd", "MaPLe", "dtd", 3, 16): 46.5,
    }


def test_the_last_finished_log_counts(tmp_path):
    path = "caltech101/CoOp/rn50_16shots/seed1"
    theirs(tmp_path, path, 80.0)
    theirs(tmp_path, path, 85.0, name="log.txt-2026-01-01-10-00-00")
    theirs(tmp_path, path, 99.0, name="log.txt-2026-01-02-10-00-00", Finish_training="killed")
    (run,) = collect(tmp_path).runs
    assert run.metrics["accuracy"] == 85.0


def test_ours_is_finished_only_with_results(tmp_path):
    path = "fewshot/dtd/shots_16/MoCoOp/a/seed1"
    theirs(tmp_path, path, 80.0, "MoCoOp", "DescribableTextures")
    (tmp_path / path / "config.json").write_text("{}")
    tree = collect(tmp_path)
    assert not tree.runs[0].finished
    (line,) = gaps(tree.runs)
    assert "unfinished, at epoch 50/50" in line
    assert line.endswith("SEEDS=1 bash scripts/mocoop/main.sh dtd 16")


def test_missing_runs_come_with_their_command(tmp_path):
    for seed in (1, 2):
        ours(tmp_path, f"base2new/train_base/dtd/shots_16/MoCoOp/a/seed{seed}", accuracy=1, trainer="MoCoOp")
    ours(tmp_path, "base2new/test_new/dtd/shots_16/MoCoOp/a/seed1", accuracy=1, trainer="MoCoOp")
    assert gaps(collect(tmp_path).runs) == [
        "missing: MoCoOp dtd 16 shots new seed 2  ->  SEEDS=2 bash scripts/mocoop/base2new.sh dtd"
    ]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"accuracy": "x"}', b"\x00\xff" * 50, b'{"error_rate": 1}'])
def test_damaged_results_are_named_and_left_out(tmp_path, content, capsys, monkeypatch):
    ours(tmp_path, "fewshot/dtd/shots_16/CoOp/a/seed1", accuracy=50, trainer="CoOp")
    ours(tmp_path, "fewshot/dtd/shots_16/CoOp/a/seed2", accuracy=50, trainer="CoOp")
    bad = tmp_path / "fewshot/dtd/shots_16/CoOp/a/seed2/results.json"
    bad.write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["parse_results.py", str(tmp_path)])
    assert main() == 0
    captured = capsys.readouterr()
    assert "50.00" in captured.out
    assert f"left out: {bad}" in captured.err


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=400), st.text(max_size=400).map(lambda t: (LOG + t).encode("utf-8", "replace"))))
def test_no_log_brings_it_down(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("logs") / "caltech101/CoOp/rn50_16shots/seed1"
    folder.mkdir(parents=True)
    (folder / "log.txt").write_bytes(content)
    tree = collect(folder.parents[3])
    tables(tree.runs, "accuracy")
    gaps(tree.runs)


@pytest.mark.parametrize("style", ["plain", "github", "latex", "csv", "json"])
def test_formats(tmp_path, style):
    ours(tmp_path / "runs", "fewshot/dtd/shots_16/CoOp/a/seed1", accuracy=50.126, trainer="CoOp")
    ours(tmp_path / "runs", "fewshot/dtd/shots_16/LASP/a/seed1", accuracy=60, trainer="LASP")
    out = tmp_path / "table"
    command = [sys.executable, "parse_results.py", str(tmp_path / "runs"), "--format", style, "--out", str(out)]
    command += [] if style in ("csv", "json") else ["--verbose"]  # would do nothing there
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    text = out.read_text()
    expected = {
        "plain": "50.13",
        "github": "**60.00**",
        "latex": "\\textbf{60.00}",
        "csv": "DTD,CoOp,16 shots,50.1260,,1",
        "json": '"accuracy": 50.126',
    }
    assert expected[style] in text


def full_base2new(root, method, base, new):
    for dataset in group("benchmarks"):
        end = f"{dataset}/shots_16/{method}/vit/seed1"
        ours(root, f"base2new/train_base/{end}", accuracy=base, trainer=method)
        ours(root, f"base2new/test_new/{end}", accuracy=new, trainer=method)


def test_published_numbers_stand_beside_ours_with_the_difference(tmp_path):
    full_base2new(tmp_path, "CoOp", 83.0, 63.0)
    full_base2new(tmp_path, "MoCoOp", 84.0, 70.0)
    for shots in (1, 16):
        ours(tmp_path, f"fewshot/dtd/shots_{shots}/CoOp/a/seed1", accuracy=50, trainer="CoOp")
    ours(tmp_path, "xd/from_imagenet/test/dtd/shots_16/CoOp/a/seed1", accuracy=40, trainer="CoOp")
    ours(tmp_path, "fewshot/demo/shots_16/CoOp/a/seed1", accuracy=50, trainer="CoOp")
    found = {t.name: t for t in published_tables(collect(tmp_path).runs, "accuracy", ("base2new", "fewshot", "xd"))}
    rows = {tuple(labels): [c.values[0] if c.values else None for c in cells] for labels, cells in
            found["base2new_published"].rows}  # fmt: skip
    assert rows["average of 11", "CoOp", "published [1]"] == [82.69, 63.22, 71.66]
    assert rows["average of 11", "CoOp", "here"] == [
        pytest.approx(83),
        pytest.approx(63),
        pytest.approx(71.63, abs=0.01),
    ]
    assert rows["average of 11", "CoOp", "difference"][0] == pytest.approx(0.31)
    assert not any(labels[1] == "MoCoOp" and labels[2].startswith("published") for labels in rows)
    assert ("average of 11", "MoCoOp", "here") in rows
    xd = {tuple(labels): cells for labels, cells in found["xd_from_imagenet_published"].rows}
    assert [c.mean for c in xd["trained on ImageNet", "CoOp", "here"] if c.values] == [40]
    few = [labels for labels, _ in found["fewshot_published"].rows]
    assert ["average of 11", "CoOp", "here"] not in few  # one dataset is not the papers' average
    text = render(found["base2new_published"], "github")
    assert "+0.31" in text
    assert "[1] README.md of HealthX-Lab/CLIP-SVD (GitHub, commit 022b1ed)." in text
    assert published_tables([], "macro_f1", ("base2new",)) == []


def test_a_log_of_another_backbone_is_not_set_beside_published_numbers(tmp_path):
    for name in ("RN50", "ViT-B/16"):
        folder = tmp_path / name.replace("/", "") / "dtd/CoOp/a_16shots/seed1"
        folder.mkdir(parents=True)
        folder.joinpath("log.txt").write_text(
            f"MODEL:\n  BACKBONE:\n    NAME: {name}\nLoading trainer: CoOp\nLoading dataset: DescribableTextures\n"
            "=> result\n* total: 1,000\n* correct: 600\n* accuracy: 60.0%\n* error: 40.0%\n* macro_f1: 60.0%\n"
        )
    found = {name: collect(tmp_path / name).runs for name in ("RN50", "ViT-B16")}
    assert [run.details["backbone"] for runs in found.values() for run in runs] == ["RN50", "ViT-B/16"]
    rows = {name: [labels[2] for table in published_tables(runs, "accuracy", ["fewshot"]) for labels, _ in table.rows]
            for name, runs in found.items()}  # fmt: skip
    assert "here" not in rows["RN50"]
    assert "here" in rows["ViT-B16"]


def test_runs_with_all_classes_as_candidates_have_a_table_of_their_own(tmp_path):
    for seed in (1, 2):
        end = f"dtd/shots_16/CoOp/a/seed{seed}"
        ours(tmp_path, f"base2new/train_base/{end}", accuracy=80, trainer="CoOp", subsample_classes="base")
        ours(tmp_path, f"base2new/test_new/{end}", accuracy=60, trainer="CoOp", subsample_classes="new")
        ours(tmp_path, f"base2new/test_joint/{end}", accuracy=47, trainer="CoOp", subsample_classes="joint",
             base_accuracy=60, new_accuracy=30)  # fmt: skip
    plain, joint = tables(collect(tmp_path).runs, "accuracy")
    assert (plain.name, joint.name) == ("base2new", "base2new_joint")
    assert [cell.mean for _, _, cell in plain.filled()] == [80, 60, pytest.approx(68.571, abs=0.001)]
    assert [cell.mean for _, _, cell in joint.filled()] == [60, 30, 40]
    assert [table.name for table in tables(collect(tmp_path).runs, "macro_f1")] == ["base2new"]
    (tmp_path / "base2new/test_joint/dtd/shots_16/CoOp/a/seed2/results.json").unlink()
    (line,) = gaps(collect(tmp_path).runs)
    assert "joint" in line


def test_a_note_says_what_was_used_beyond_the_shots_and_strict_leaves_it_out(tmp_path, capsys, monkeypatch):
    def identity(nothing=False, **settings):
        return {"settings": settings, "backbone_sha256": "0", "data": {"val": fingerprint([], "") if nothing else "1"}}

    for part in ("train_base", "test_new"):
        path = f"base2new/{part}/dtd/shots_16"
        ours(tmp_path, f"{path}/CoOp/a/seed1", accuracy=50, trainer="CoOp")
        names = {"text_classes": "all"} if part == "train_base" else {}
        ours(tmp_path, f"{path}/LASP/a/seed1", accuracy=50, trainer="LASP", **names)
    for trainer, said in {
        "CoOp": identity(), "CoCoOp": identity(**{"TEST.FINAL_MODEL": "best_val"}), "LinearProbe": identity(),
        "ProGrad": identity(nothing=True, **{"TEST.FINAL_MODEL": "best_val"}), "LASP": identity(),
    }.items():  # fmt: skip
        ours(tmp_path, f"fewshot/dtd/shots_16/{trainer}/a/seed1", accuracy=50, trainer=trainer, identity=said,
             text_classes="all")  # fmt: skip
    few, base_to_new = tables(collect(tmp_path).runs, "accuracy")
    begin = "Used beyond the shots and the names of the classes asked: "
    assert few.notes == [f"{begin}† validation pictures, to choose by: CoCoOp, Linear probe."]
    assert base_to_new.notes[-1] == f"{begin}* the new classes' names, while training on the base classes: LASP."
    assert "LASP* base" in render(base_to_new, "plain")
    assert "CoOp base" in render(base_to_new, "plain")
    assert "Linear probe† " in render(few, "plain")
    assert r"Linear probe\textdagger{}" in render(few, "latex")
    assert r"LASP* & " in render(base_to_new, "latex")
    assert "LASP*" not in str(base_to_new.header)  # as figures and --paired know it
    monkeypatch.setattr(sys, "argv", ["parse_results.py", str(tmp_path), "--strict"])
    assert main() == 0
    captured = capsys.readouterr()
    assert "Linear probe" not in captured.out
    assert "LASP base" not in captured.out
    assert "CoOp base" in captured.out
    assert "left out by --strict: base2new, LASP: used the new classes' names" in captured.err


def test_no_two_methods_look_alike_in_a_figure():
    looks = Looks([method.title for method in methods().values()])
    titles = list(looks.place)
    assert len(titles) > 8
    for look in (looks.line, looks.bar):
        assert len({tuple((k, str(v)) for k, v in look(t).items() if k != "label") for t in titles}) == len(titles)
    assert len({looks.line(t)["marker"] for t in titles}) == len(titles)


def published_rows(block, row):
    """method -> (numbers, source) of one row of a block of published.yaml; no method stands in a row twice."""
    found = [
        (method, (numbers, part["source"]))
        for part in yaml.safe_load(FILE.read_text())[block]["parts"]
        for method, numbers in part.get(row, {}).items()
    ]
    assert len(dict(found)) == len(found), row
    return dict(found)


def test_published_harmonic_means_are_those_of_their_rows_or_say_what_they_are():
    for row in ("average of 11", *group("benchmarks")):
        for method, ((base, new, h), source) in published_rows("base2new", row).items():
            of_datasets = "mean of the datasets' H" in source
            assert (abs(harmonic(base, new) - h) < 0.011) != of_datasets, (row, method)


@pytest.mark.parametrize(("block", "methods"), [("base2new", 11), ("fewshot", 1)])
def test_published_averages_are_those_of_the_eleven_datasets(block, methods):
    of_datasets = [published_rows(block, dataset) for dataset in group("benchmarks")]
    averages = published_rows(block, "average of 11")
    whole = [method for method in averages if all(method in row for row in of_datasets)]
    assert len(whole) == methods
    for method in whole:
        columns = zip(*(row[method][0] for row in of_datasets), strict=True)
        means = [sum(column) / 11 for column in columns][: 2 if block == "base2new" else None]
        assert means == pytest.approx(averages[method][0][: len(means)], abs=0.0101), method


@pytest.mark.parametrize("block", ["base2new", "xd_from_imagenet", "dg_from_imagenet", "fewshot"])
def test_every_published_row_names_a_file_of_one_commit_or_a_table_of_a_paper(block):
    known = yaml.safe_load(FILE.read_text())[block]
    for part in known["parts"]:
        assert re.match(r"\S*(?:README\.md|\.log) of \S+ \(GitHub, commit [0-9a-f]{7}\)|Table \d of ", part["source"])
        for row, by_method in part.items():
            for numbers in by_method.values() if row != "source" else ():
                assert len(numbers) == len(known["columns"])
                assert all(0 < number < 100 for number in numbers)


@pytest.fixture
def varied(tmp_path):
    """Runs of every protocol, with logs, a router record, and one that is going on."""
    root = tmp_path / "runs"
    for seed in (1, 2):
        for method, plus in {"ZeroshotCLIP": 0, "CoOp": 3, "MoCoOp": 5, "<b>Other": 2}.items():
            for d in ("dtd", "eurosat"):
                for shots in (1, 4, 16):
                    path = f"fewshot/{d}/shots_{shots}/{method}/a/seed{seed}"
                    value = 50 + plus + seed + (0 if method == "ZeroshotCLIP" else shots / 2)
                    ours(
                        root,
                        path,
                        accuracy=value,
                        trainer=method,
                        seconds=12.0,
                        config={"OPTIM.LR": plus},
                        versions={"torch": "2"},
                    )
                    (root / path / "log.txt").write_text("\n".join(
                        f"epoch [{e}/4] batch [5/5] time 0 (0) data 0 (0) loss 1 ({2 / e:.4f}) lr 1.0e-03 eta 0:00:00"
                        for e in range(1, 5)))  # fmt: skip
                end = f"{d}/shots_16/{method}/a/seed{seed}"
                ours(root, f"base2new/train_base/{end}", accuracy=70 + plus, trainer=method)
                ours(root, f"base2new/test_new/{end}", accuracy=60 - plus, trainer=method)
        ours(root, f"xd/from_dtd/test/eurosat/shots_16/CoOp/a/seed{seed}", accuracy=40, trainer="CoOp")
        ours(root, f"ablation/full/dtd/shots_16/MoCoOp/a/seed{seed}", accuracy=40, trainer="MoCoOp")
        ours(root, f"ablation/top_1/dtd/shots_16/MoCoOp/a/seed{seed}", accuracy=38, trainer="MoCoOp")
    record = {
        "by": "domain",
        "rows": ["dark", "bright"],
        "experts": ["a {}.", "b {}."],
        "percent": [[90, 10], [0, 100]],
    }
    (root / "fewshot/dtd/shots_16/MoCoOp/a/seed1/router.json").write_text(json.dumps(record))
    search = {tower: {"lengths": [0, 1], "probabilities": [[0.9, 0.1], [0.2, 0.8]]} for tower in ("vision", "text")}
    (root / "fewshot/dtd/shots_16/CoOp/a/seed1/search.json").write_text(json.dumps(search))
    (root / "fewshot/dtd/shots_16/CoOp/a/seed1/rounds.csv").write_text("round,accuracy\n1,50\n2,\n3,60\n")
    (root / "fewshot/dtd/shots_16/CoOp/a/seed2/search.json").write_text('{"vision": {"probabilities": [["x"]]}}')
    (root / "fewshot/dtd/shots_16/CoOp/a/seed2/rounds.csv").write_text("round\n1\n")
    theirs(root, "fewshot/dtd/shots_16/LASP/a/seed1", 80.0, "LASP", "DescribableTextures", Finish_training="")
    (root / "fewshot/dtd/shots_16/LASP/a/seed1/config.json").write_text("{}")
    return root


def test_plots(varied, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["parse_results.py", str(varied), "--plots", str(tmp_path / "figures")])
    assert main() == 0
    names = {p.stem for p in (tmp_path / "figures").glob("*.png")}
    assert names == {p.stem for p in (tmp_path / "figures").glob("*.pdf")}
    assert names == {
        "fewshot_DTD", "fewshot_EuroSAT", "fewshot_average_of_2", "fewshot_most_shots", "base2new_scatter", "base2new_h",
        "xd_from_dtd", "ablation", "training_DTD", "training_EuroSAT", "router_fewshot_dtd_MoCoOp_a_16shots_seed1",
        "search_fewshot_dtd_CoOp_a_16shots_seed1", "rounds_DTD",
    }  # fmt: skip
    for path in (tmp_path / "figures").glob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 200
            assert len(picture.convert("L").getcolors(256)) > 10  # not blank


def test_the_page_is_self_contained(varied, tmp_path, monkeypatch, capsys):
    page = tmp_path / "report.html"
    monkeypatch.setattr(sys, "argv", ["parse_results.py", str(varied), "--html", str(page), "--published"])
    assert main() == 0
    text = page.read_text()
    assert 'src="http' not in text
    assert "<script" not in text
    assert "<link" not in text
    assert "<b>Other" not in text  # names are text, not markup
    assert "&lt;b&gt;Other" in text
    assert text.count("<img") == 13
    assert "unfinished, at epoch 50/50" in text
    assert "OPTIM.LR: 5" in text
    assert "published beside here" in text


def test_the_live_view(varied):
    folder = varied / "fewshot/dtd/shots_16/LASP/a/seed1"
    text, n_running = live_view(varied)
    assert n_running == 0
    assert "1 stopped" in text
    (folder / ".holder").write_text(f"process {os.getpid()} on {socket.gethostname()}, since now\n")
    text, n_running = live_view(varied)
    assert n_running == 1
    assert text.splitlines()[-1].split()[:8] == ["running", "fewshot", "dtd", "LASP", "16", "1", "50/50,", "evaluating"]
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    (folder / ".holder").write_text(f"process {process.pid} on {socket.gethostname()}, since then\n")
    assert live_view(varied)[1] == 0  # its process is dead


def test_watching_a_tree_at_rest_ends(varied):
    command = [sys.executable, "parse_results.py", str(varied), "--watch"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=patience(60))
    assert process.returncode == 0
    assert "0 running, 1 stopped" in process.stdout


def test_a_missing_folder(tmp_path):
    process = subprocess.run([sys.executable, "parse_results.py", "nowhere"], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 1
    assert process.stderr == "error: no folder nowhere: give the folder that holds the runs\n"


def test_a_thousand_runs(tmp_path):
    for i in range(1000):
        theirs(
            tmp_path,
            f"dtd/CoOp/rn50_{2 ** (i % 5)}shots/nctx{i // 15}/seed{i % 3}",
            80.0,
            dataset="DescribableTextures",
        )
    begin = time.monotonic()
    tree = collect(tmp_path)
    assert len(tables(tree.runs, "accuracy")) == 1
    assert len(tree.runs) >= 900
    assert time.monotonic() - begin < 10


def cells_of(root, metric="accuracy"):
    """{(title, labels, column): (values, seeds)} of everything that is shown."""
    tree = collect(root)
    return {
        (table.title, *labels, column): cell.values
        for table in tables(tree.runs, metric)
        for labels, column, cell in table.filled()
    }, tree


def settings_of(**changed):
    own = {"OPTIM.LR": 0.1, "OPTIM.MAX_EPOCH": 40, "SEED": 1, "TRAINER.NAME": "CoOp", **changed}
    return {"settings": own, "backbone_sha256": "a", "data": {"test": "t"}}


def on_backbone(root, method, name, weights):
    own = settings_of(**{"TRAINER.NAME": method}) | {"backbone_sha256": weights}
    path = f"fewshot/dtd/shots_16/{method}/a/seed1"
    ours(root, path, accuracy=50, trainer=method, backbone=name, identity=own)


class TestNothingIsMixed:
    def test_seeds_that_differ_in_more_than_the_seed_stand_apart(self, tmp_path):
        for seed, epochs in ((1, 40), (2, 10), (3, 40)):
            ours(tmp_path, f"fewshot/cifar10/shots_16/CoOp/a/seed{seed}", accuracy=50 + seed, trainer="CoOp",
                 identity=settings_of(**{"OPTIM.MAX_EPOCH": epochs, "SEED": seed}))  # fmt: skip
        found, _ = cells_of(tmp_path)
        assert sorted(found.values()) == [(51, 53), (52,)]
        assert any("OPTIM.MAX_EPOCH 10" in key[2] for key in found)
        text = render(few_shot_table(collect(tmp_path).runs, "accuracy"), "simple")
        assert "52.00 [1 seed]" in text

    def test_three_kinds_are_three_whatever_their_names(self, tmp_path):
        for seed, (lr, backbone) in enumerate([(1, "a"), (2, "a"), (1, "b")], 1):
            own = settings_of(**{"OPTIM.LR": lr}) | {"backbone_sha256": backbone}
            ours(tmp_path, f"fewshot/dtd/shots_16/CoOp/a/seed{seed}", accuracy=10 * seed, trainer="CoOp", identity=own)
        assert sorted(cells_of(tmp_path)[0].values()) == [(10,), (20,), (30,)]

    @pytest.mark.parametrize("names", [("ViT-B/16", "RN50"), ("clip.pt", "clip.pt")])  # the file was another one then
    def test_a_method_on_another_backbone_names_it(self, names, tmp_path):
        for method, name, weights in zip(("CoOp", "MoCoOp"), names, ("aaa", "bbb"), strict=True):
            on_backbone(tmp_path, method, name, weights)
        on_backbone(tmp_path, "LASP", names[0], "aaa")
        other = "RN50" if "RN50" in names else "clip.pt bbb"
        assert {key[2] for key in cells_of(tmp_path)[0]} == {"CoOp", "LASP", f"MoCoOp ({other})"}
        (table,) = tables(collect(tmp_path).runs, "accuracy")
        assert f"Methods that name no backbone have {names[0]}." in table.notes

    def test_an_older_runs_backbone_is_the_one_of_its_name(self, tmp_path):
        ours(tmp_path, "fewshot/dtd/shots_16/CoOp/a/seed1", accuracy=50, trainer="CoOp", backbone="ViT-B/16",
             backbone_sha256="a", config=settings_of()["settings"])  # fmt: skip
        ours(tmp_path, "fewshot/eurosat/shots_16/CoOp/a/seed1", accuracy=60, trainer="CoOp", backbone="ViT-B/16",
             identity=settings_of())  # fmt: skip
        assert cells_of(tmp_path)[0]["Few-shot: all classes", "average of 2", "CoOp", "16 shots"] == (55,)

    def test_what_a_backbone_is_called_hides_no_use_of_settings_by_dataset(self, tmp_path):
        for method, name in (("MMRL", "ViT-B/16"), ("CoOp", "RN50")):
            on_backbone(tmp_path, method, name, name)
        (table,) = tables(collect(tmp_path).runs, "accuracy")
        assert table.signs["MMRL (ViT-B/16)"] == "¶"

    def test_one_backbone_under_two_names_is_one(self, tmp_path):
        for method, name in (("CoOp", "ViT-B/16"), ("MoCoOp", "ViT-B-16.pt")):
            on_backbone(tmp_path, method, name, "aaa")
        assert {key[2] for key in cells_of(tmp_path)[0]} == {"CoOp", "MoCoOp"}

    def test_configs_of_one_method_have_columns_of_their_own_in_each_classs_table(self, tmp_path):
        for config in ("a", "b"):
            folder = f"fewshot/dtd/shots_16/CoOp/{config}/seed1"
            ours(tmp_path, folder, accuracy=50, total=2, correct=1, trainer="CoOp")
            confusion.write(tmp_path / folder, {(0, 0): 1, (1, 0): 1}, ["sunglasses", "sunglasses"])  # as in ImageNet
        (table,), _ = per_class_tables(collect(tmp_path).runs)
        assert table.header[3:] == ["CoOp (a) 16", "CoOp (b) 16"]
        assert [labels for labels, _ in table.rows] == [
            ["sunglasses (0)", "1", ""], ["sunglasses (1)", "1", "sunglasses (0)"]
        ]  # fmt: skip

    def test_an_ablation_says_whose_it_is(self, tmp_path):
        ours(tmp_path, "ablation/no_head/dtd/shots_16/NormTuning/a/seed1", accuracy=40, trainer="NormTuning")
        assert {key[0] for key in cells_of(tmp_path)[0]} == {"Ablation of LayerNorms + head: few-shot, 16 shots"}

    @pytest.mark.parametrize("tag", ["mine", "b"])  # of which one is a config's name, too
    def test_a_tag_has_a_column_of_its_own_and_recipes_share_theirs(self, tag, tmp_path):
        for dataset, config, accuracy in (("dtd", "a", 10), ("eurosat", "b", 20)):
            for below, more in ((config, 0), (f"{config}/tag_{tag}", 5)):
                ours(
                    tmp_path, f"fewshot/{dataset}/shots_16/CoOp/{below}/seed1", accuracy=accuracy + more, trainer="CoOp"
                )
        found, _ = cells_of(tmp_path)
        assert {key[2]: values for key, values in found.items() if key[1] == "average of 2"} == {
            "CoOp": (15,), f"CoOp ({tag})": (20,)
        }  # fmt: skip

    def test_validation_is_not_test(self, tmp_path):
        ours(tmp_path, "fewshot/dtd/shots_16/CoOp/a/seed1", accuracy=90, trainer="CoOp", asked={"split": "val"})
        ours(tmp_path, "fewshot/eurosat/shots_16/CoOp/a/seed1", accuracy=50, trainer="CoOp", asked={"split": "test"})
        found, _ = cells_of(tmp_path)
        assert all("on validation" in key[2] for key, values in found.items() if values == (90,))
        assert not any(key[1].startswith("average") for key in found)

    def test_shots_of_base_to_new_have_tables_of_their_own(self, tmp_path):
        for shots in (4, 16):
            for part in ("train_base", "test_new"):
                path = f"base2new/{part}/dtd/shots_{shots}/CoOp/a/seed1"
                ours(tmp_path, path, accuracy=50 + shots, trainer="CoOp")
        titles = {key[0] for key in cells_of(tmp_path)[0]}
        assert titles == {"Base-to-new, 4 shots", "Base-to-new, 16 shots"}

    def test_base_and_new_of_different_models_give_no_h(self, tmp_path):
        for part, lr in (("train_base", 1), ("test_new", 2)):
            ours(tmp_path, f"base2new/{part}/dtd/shots_16/CoOp/a/seed1", accuracy=50, trainer="CoOp",
                 identity=settings_of(**{"OPTIM.LR": lr}))  # fmt: skip
        assert not any(key[-1].endswith(" H") for key in cells_of(tmp_path)[0])

    def test_a_seed_counts_once(self, tmp_path):
        for below in ("a", "b"):
            ours(tmp_path / below, "fewshot/dtd/shots_16/CoOp/a/seed1", accuracy=50, trainer="CoOp")
        found, tree = cells_of(tmp_path)
        assert list(found.values()) == [(50,)]
        assert any("a second run for the place of" in reason for reason in tree.unreadable.values())

    def test_zero_shot_has_one_value_for_all_shots(self, tmp_path):
        for seed in (1, 2, 3):
            ours(tmp_path, f"fewshot/dtd/shots_16/ZeroshotCLIP/a/seed{seed}", accuracy=40, trainer="ZeroshotCLIP")
            ours(tmp_path, f"fewshot/dtd/shots_1/CoOp/a/seed{seed}", accuracy=50, trainer="CoOp")
        text = render(few_shot_table(collect(tmp_path).runs, "accuracy"), "simple")
        assert "40.00 ±" not in text
        assert "50.00 ± 0.00" in text

    @pytest.mark.parametrize(
        ("values", "reason"),
        [
            ({"accuracy": 1e9}, "no percentage"),
            ({"accuracy": True}, "no percentage"),
            ({"accuracy": -5}, "no percentage"),
            ({"accuracy": 99, "error_rate": 65}, "do not make 100"),
            ({"accuracy": 50, "total": 1600, "correct": 560}, "is not 560 of 1600"),
            ({"accuracy": 50, "shots": 4}, "says shots 4"),
            ({"accuracy": 50, "seed": 2}, "says seed 2"),
            ({"accuracy": 50, "dataset": "EuroSAT"}, "says dataset eurosat"),
            ({"accuracy": 50, "identity": {"settings": []}}, "damaged"),
            ({"accuracy": 50, "versions": {"python": []}}, "versions are no text"),
        ],
    )
    def test_results_that_contradict_themselves_or_their_place(self, values, reason, tmp_path):
        ours(tmp_path, "fewshot/dtd/shots_16/CoOp/a/seed1", trainer="CoOp", **values)
        ours(tmp_path, "fewshot/dtd/shots_16/LASP/a/seed1", trainer="LASP", accuracy=60)
        found, tree = cells_of(tmp_path)
        assert list(found.values()) == [(60,)]
        (said,) = tree.unreadable.values()
        assert reason in said

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda t: t.replace("accuracy: 80.0%", "accuracy: 93.5%"), "is not 800 of 1000"),
            (
                lambda t: t + t.replace("800", "700").replace("80.0%", "70.0%").replace("20.0%", "30.0%"),
                "more than one",
            ),
            (lambda t: t.replace("* error: 20.0%", "* error: 30.0%"), "do not make 100"),
            (lambda t: t.replace("accuracy: 80.0%", "accuracy: 8,0%"), "which is no number"),
            (lambda t: t.replace("* error", "* accuracy: 90.0%\n* error"), "two things"),
            (lambda t: "seed: 2\n" + t, "says seed 2"),
        ],
    )
    def test_logs_that_contradict_themselves_or_their_place(self, change, reason, tmp_path):
        folder = tmp_path / "caltech101/CoOp/rn50_16shots/seed1"
        theirs(tmp_path, "caltech101/CoOp/rn50_16shots/seed1", 80.0)
        (folder / "log.txt").write_text(change((folder / "log.txt").read_text()))
        found, tree = cells_of(tmp_path)
        assert not found
        (said,) = tree.unreadable.values()
        assert reason in said

    def test_a_validation_block_after_the_test_does_not_count(self, tmp_path):
        theirs(tmp_path, "caltech101/CoOp/rn50_16shots/seed1", 80.0)
        log = tmp_path / "caltech101/CoOp/rn50_16shots/seed1/log.txt"
        text = log.read_text()
        block = text[text.index("=> result") : text.index("Elapsed")].replace("800", "900").replace("80.0", "90.0")
        log.write_text(text + "Evaluate on the *val* set\n" + block.replace("20.0", "10.0"))
        assert list(cells_of(tmp_path)[0].values()) == [(80.0,)]


def test_nothing_takes_long_or_takes_the_table_away(tmp_path):
    ours(tmp_path, "fewshot/dtd/shots_16/CoOp/a/seed1", accuracy=50, trainer="CoOp")
    for name, content in {
        "long": "epoch [1/2] " + "loss " * 30_000, "deep": None, "pipe": None, "surrogate": None,
    }.items():  # fmt: skip
        folder = tmp_path / f"fewshot/eurosat/shots_16/CoOp/{name}/seed1"
        folder.mkdir(parents=True)
        if name == "long":
            (folder / "log.txt").write_text(content)
        elif name == "deep":
            (folder / "results.json").write_text("[" * 100_000)
        elif name == "pipe":
            os.mkfifo(folder / "results.json")
            os.mkfifo(folder / "log.txt")
        else:
            (folder / "results.json").write_text('{"accuracy": 50, "trainer": "X\\ud800"}')
    begin = time.monotonic()
    process = subprocess.run([sys.executable, "parse_results.py", tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert time.monotonic() - begin < 20
    assert "50.00" in process.stdout
    assert "Traceback" not in process.stderr


def test_the_interval_is_students(tmp_path):
    for seed, value in enumerate((70, 72, 74), 1):
        ours(tmp_path, f"fewshot/dtd/shots_16/CoOp/a/seed{seed}", accuracy=value, trainer="CoOp")
        ours(
            tmp_path, f"fewshot/dtd/shots_16/LASP/a/seed{seed}", accuracy=value + 10 + seed * (seed - 1), trainer="LASP"
        )
    (table,) = tables(collect(tmp_path).runs, "accuracy")
    assert "72.00 ± 4.97" in render(table, "simple", "ci95")  # 4.3027 x 2 / sqrt(3)
    assert "72.00 ± 1.85" in render(table, "simple", "dassl_ci95")
    assert "+12.67 ± 7.59" in render(paired(table, "CoOp"), "simple")  # of 10, 12, 16


def test_latex_is_escaped_and_as_papers_print_it(tmp_path):
    for part in ("train_base", "test_new"):
        ours(tmp_path, f"base2new/{part}/quickdraw/shots_16/CoOp/a_b/seed1", accuracy=50, trainer="CoOp")
        ours(tmp_path, f"base2new/{part}/quickdraw/shots_16/My_Own&/a_b/seed1", accuracy=40, trainer="My_Own&")
    (table,) = tables(collect(tmp_path).runs, "accuracy")
    text = render(table, "latex")
    assert r"$\pm$" not in text  # of one seed
    for expected in (r"\toprule", r"\caption{Base-to-new.", r"\label{tab:base2new}", "Method & Base & New & H",
                     r"\emph{Quick, Draw!}", r"My\_Own\& & 40.00", r"CoOp & \textbf{50.00}"):  # fmt: skip
        assert expected in text


def test_latex_of_several_seeds_of_differences_and_of_published_rows(tmp_path):
    for seed, value in enumerate((70, 72, 74), 1):
        for part in ("train_base", "test_new"):
            ours(tmp_path, f"base2new/{part}/dtd/shots_16/CoOp/a/seed{seed}", accuracy=value, trainer="CoOp")
            ours(tmp_path, f"base2new/{part}/dtd/shots_16/LASP/a/seed{seed}", accuracy=value - 10, trainer="LASP")
    runs = collect(tmp_path).runs
    (table,) = tables(runs, "accuracy")
    assert r"Means $\pm$ standard deviations.}" in render(table, "latex")
    text = render(paired(table, "CoOp"), "latex")
    assert r"$-$10.00 $\pm$ 0.00" in text
    assert "LASP base & LASP new" in text
    several = [*runs, *(replace(run, shots=4) for run in runs)]
    assert all("Method & Base & New & H" in render(table, "latex") for table in tables(several, "accuracy"))
    published = published_tables(runs, "accuracy", ["base2new"])
    (text,) = [render(found, "latex") for found in published]
    assert " & method &  & base & new & H" in text
    assert re.search(r" & PromptSRC & published \[\d\] & 84\.26 & 76\.10 & 79\.97", text)
    assert r"\begin{longtable}{lllrrr}" in text


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex: install texlive-latex-recommended")
def test_latex_compiles_and_fits(tmp_path):
    """Every kind of table, with the literature's, in LaTeX's own article."""
    for seed in (1, 2, 3):
        for method in ("CoOp", "LASP", "MoCoOp", "My_Own&"):
            for place in ("fewshot", "base2new/train_base", "base2new/test_new", "xd/from_imagenet/test"):
                for dataset in ("dtd", "eurosat", "caltech101"):
                    folder = f"{place}/{dataset}/shots_16/{method}/a/seed{seed}"
                    ours(tmp_path / "runs", folder, accuracy=50 + seed, trainer=method)
    words = [
        tmp_path / "runs",
        "--published",
        "--paired",
        "CoOp",
        "--format",
        "latex",
        "--out",
        tmp_path / "tables.tex",
    ]
    done = subprocess.run([sys.executable, "parse_results.py", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    tables_of_tex = (tmp_path / "tables.tex").read_text()
    packages = tables_of_tex.splitlines()[0].removeprefix("% ")
    head = "\\documentclass{article}\\usepackage[utf8]{inputenc}" + packages + "\\begin{document}\n"
    (tmp_path / "paper.tex").write_text(head + tables_of_tex + "\\end{document}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert tables_of_tex.count("\\begin{table}") >= 4
    too_wide = [float(points) for points in re.findall(r"Overfull .hbox .([\d.]+)pt", done.stdout)]
    assert max(too_wide, default=0) < 20


def test_each_classs_accuracy_and_what_it_is_taken_for(tmp_path, capsys, monkeypatch):
    names = ["cat", "dog, big", "owl"]
    for seed, right in ((1, 2), (2, 4)):
        folder = f"fewshot/dtd/shots_16/CoOp/a/seed{seed}"
        ours(tmp_path, folder, accuracy=100 * (right + 6) / 12, total=12, correct=right + 6, trainer="CoOp")
        counts = {(0, 0): right, (0, 2): 4 - right, (1, 1): 6, (2, 0): 2}
        confusion.write(tmp_path / folder, {pair: n for pair, n in counts.items() if n}, names)
    ours(tmp_path, "fewshot/dtd/shots_16/LASP/a/seed1", accuracy=50, trainer="LASP")
    monkeypatch.setattr(sys, "argv", ["parse_results.py", str(tmp_path), "--per-class"])
    assert main() == 0
    captured = capsys.readouterr()
    assert "Each class: DTD, few-shot" in captured.out
    lines = [line.split() for line in captured.out.splitlines()]
    assert ["cat", "4", "owl", "75.00", "±", "25.00"] in lines
    assert ["dog,", "big", "6", "100.00", "±", "0.00"] in lines
    assert ["owl", "2", "cat", "0.00", "±", "0.00"] in lines
    assert 'Always saying "dog, big" would be right 50.00 % of the time, guessing 33.33 %.' in captured.out
    assert "LASP/a/seed1: it was evaluated by an older version" in captured.err
    (tmp_path / "fewshot/dtd/shots_16/CoOp/a/seed1/confusion.csv").write_text("class,predicted,pictures\ncat,cat,3\n")
    assert main() == 1
    assert "does not count the 12 pictures of its run: remove it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({(0, 1): 3, (1, 1): 2}, 'every test picture was taken for "b": the model tells nothing apart'),
        ({(0, 1): 3, (0, 0): 2}, 'every test picture is of class "a": the accuracy says nothing of the others'),
        ({(0, 0): 3, (1, 1): 2}, ""),
        ({}, ""),
    ],
)
def test_what_tells_nothing_apart_is_said(counts, said):
    assert confusion.collapsed(counts, ["a", "b"]) == said


def test_what_was_told_or_chosen_for_each_dataset_is_marked(tmp_path):
    """MMRL is told on base-to-new which half is asked; PromptSRC has recipes of some datasets, few-shot; ImageNet's epochs
    are nobody's choice by dataset."""
    for trainer, dataset, config in (("MMRL", "dtd", "vit_b16_ep50"), ("PromptSRC", "dtd", "vit_b16_ep50_late"),
                                     ("PromptSRC", "caltech101", "vit_b16_ep50"), ("CoOp", "imagenet", "vit_b16_ep50"),
                                     ("CoOp", "dtd", "vit_b16")):  # fmt: skip
        ours(tmp_path, f"fewshot/{dataset}/shots_16/{trainer}/{config}/seed1", accuracy=50, trainer=trainer)
    for part in ("train_base", "test_new"):
        for trainer, config in (("MMRL", "vit_b16_ep10"), ("PromptSRC", "vit_b16_ep20")):
            ours(tmp_path, f"base2new/{part}/dtd/shots_16/{trainer}/{config}/seed1", accuracy=50, trainer=trainer)
    few, base_to_new = tables(collect(tmp_path).runs, "accuracy")
    assert few.notes[0].endswith("asked: ¶ settings chosen for each dataset: MMRL, PromptSRC (vit_b16_ep50_late).")
    assert "§ being told at test whether the classes asked are those of training: MMRL" in base_to_new.notes[-1]
    assert "MMRL§¶ base" in render(base_to_new, "plain")
    assert "PromptSRC base" in render(base_to_new, "plain")
    assert "CoOp" not in few.signs


def test_what_was_not_told_and_not_chosen_is_not_marked(tmp_path):
    """MMRL whose options are given; TCP from ImageNet, tested on a dataset for which it has a recipe of its own."""
    same = {"TRAINER.MMRL.HEADS": "class", "TRAINER.MMRL.REG_WEIGHT": 1.0, "TRAINER.MMRL.DIM": 512}
    for more, expected in (
        (same, ""),
        (same | {"TRAINER.MMRL.DIM": None}, "¶"),
        (same | {"TRAINER.MMRL.HEADS": "told"}, "§"),
    ):
        root = tmp_path / f"mmrl{expected}"
        for part in ("train_base", "test_new"):
            ours(root, f"base2new/{part}/dtd/shots_16/MMRL/vit_b16_ep10/seed1", accuracy=50, trainer="MMRL",
                 identity=settings_of(**more))  # fmt: skip
        assert "".join(signs(collect(root).runs).values()) == expected
    for dataset in ("sun397", "dtd"):
        own = {"protocol": "xd", "dataset": dataset, "part": dataset, "source": "imagenet", "trainer": "TCP",
               "config": "vit_b16_ep25", "tag": "", "shots": 16, "seed": 1}  # fmt: skip
        folder = f"xd/from_imagenet/test/{dataset}/shots_16/TCP/vit_b16_ep25/seed1"
        ours(tmp_path / "tcp", folder, accuracy=50, trainer="TCP", about=own)
    assert [*signs(collect(tmp_path / "tcp").runs).values()] == [""]


def test_federations_have_a_table_of_their_own(tmp_path):
    """Each client is tested on its own kind of pictures."""
    for method, accuracy in (("CoOp", 60), ("LocalCoOp", 88)):
        ours(tmp_path, f"fewshot/dtd/shots_16/{method}/a/seed1", accuracy=accuracy, trainer=method)
    ordinary, federated = tables(collect(tmp_path).runs, "accuracy")
    assert [labels[1] for labels, _ in ordinary.rows] == ["CoOp"]
    assert federated.title.startswith("Few-shot in a federation: each client's kind of pictures")
    assert [cells[0].values for _, cells in federated.rows] == [(88,)]


def test_what_others_write_steers_no_terminal_spreadsheet_or_page():
    """Escapes in a log or a command, formulas in CSV, and names that would end a LaTeX label or a cell."""
    steering = "\x1b[2Jevil"
    run = Run("fewshot", "dtd", "CoOp", "a", 16, 1, "", Path("x"), command=f"SEEDS=1 {steering}")
    assert "\x1b" not in "".join(gaps([replace(run, file=Path(steering))]))
    log = f"epoch [1/2] batch [1/2] time 1 (1) data 0 (0) loss {steering} lr 1e-3 eta {steering}\n"
    assert "\x1b" not in str(progress_of_log(log))
    table = Table("xd_from_x}\\input{y", "T", ["dataset", "=A1"], [(["a|b"], [Cell((50.0,))])], [])
    assert "'=A1" in as_csv([table], "std")
    assert r"\label{tab:xd-from-x--input-y}" in render(table, "latex")
    assert r"a\|b" in render(table, "github")


def test_of_an_unfinished_run_nobody_knows_what_it_used(tmp_path):
    """Two seeds of MMRL that is told nothing stay, whatever a third, which has no settings yet, may be."""
    settings = {"TRAINER.MMRL.HEADS": "class", "TRAINER.MMRL.DIM": 512, "TRAINER.MMRL.REG_WEIGHT": 1.0}
    said = {"settings": settings, "backbone_sha256": "0", "data": {"val": fingerprint([], "")}}
    for seed in (1, 2):
        for part in ("train_base", "test_new"):
            place = f"base2new/{part}/dtd/shots_16/MMRL/a/seed{seed}"
            ours(tmp_path, place, accuracy=50, trainer="MMRL", identity=said)
    finished = collect(tmp_path).runs
    unfinished = [replace(run, seed=3, metrics={}, identity=None) for run in finished]
    assert set(signs([*finished, *unfinished]).values()) == {""}


def test_strict_leaves_out_a_column_and_not_a_part_of_it(tmp_path, capsys, monkeypatch):
    """LASP has a recipe of its own for Food101, and none for DTD; both are one column."""
    for dataset, config in (("food101", "vit_b16_ep10_batch1"), ("dtd", "vit_b16_ep50")):
        ours(tmp_path, f"fewshot/{dataset}/shots_16/LASP/{config}/seed1", accuracy=50, trainer="LASP")
        ours(tmp_path, f"fewshot/{dataset}/shots_16/CoOp/vit_b16/seed1", accuracy=60, trainer="CoOp")
    monkeypatch.setattr(sys, "argv", ["parse_results.py", str(tmp_path), "--strict"])
    assert main() == 0
    captured = capsys.readouterr()
    assert "LASP" not in captured.out
    assert "left out by --strict: fewshot, LASP: used settings chosen for each dataset" in captured.err
