"""Tables from trees of runs: ours, and those that CoOp, CoCoOp, LASP and MaPLe write."""

import json
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parse_results import base_to_new_table, few_shot_table, gaps, harmonic, main, render, tables, transfer_table
from scripts.collect import collect

LOG = """** Arguments **
trainer: {trainer}
Loading trainer: {trainer}
Loading dataset: {dataset}
epoch [50/50] batch [5/5] time 0.079 (0.118) data 0.000 (0.037) loss 0.6394 (0.5167) lr 1.9791e-04 eta 0:00:00
Checkpoint saved to x
Finish training
Evaluate on the *test* set
=> result
* total: 864
* correct: 698
* accuracy: {accuracy}%
* error: 19.2%
* macro_f1: 80.6%
Elapsed: 0:01:07
"""


def ours(root, path, **values):
    folder = root / path
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "results.json").write_text(json.dumps({"macro_f1": 1.0, "error_rate": 1.0, **values}))


def theirs(root, path, accuracy, trainer="CoOp", dataset="Caltech101", name="log.txt", **changes):
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    text = LOG.format(trainer=trainer, dataset=dataset, accuracy=accuracy)
    for old, new in changes.items():
        text = text.replace(old.replace("_", " "), new)
    (folder / name).write_text(text)


def test_base_to_new_as_the_papers_compute_it(tmp_path):
    numbers = {"caltech101": ([98, 96], [94, 92]), "eurosat": ([90, 92], [50, 60])}
    for dataset, (base, new) in numbers.items():
        for seed, (b, n) in enumerate(zip(base, new, strict=True), 1):
            end = f"{dataset}/shots_16/MoCoOp/vit/seed{seed}"
            ours(tmp_path, f"base2new/train_base/{end}", accuracy=b, trainer="MoCoOp", text_classes="all")
            ours(tmp_path, f"base2new/test_new/{end}", accuracy=n, trainer="MoCoOp")
    table = base_to_new_table(collect(tmp_path).runs, "accuracy")
    rows = {labels[0]: [cell.mean for cell in cells] for labels, cells in table.rows}
    assert rows["caltech101"] == [97, 93, pytest.approx(harmonic(97, 93))]
    assert rows["eurosat"] == [91, 55, pytest.approx(harmonic(91, 55))]
    assert rows["average of 2"] == [94, 74, pytest.approx(harmonic(94, 74))]
    mean_of_h = (harmonic(97, 93) + harmonic(91, 55)) / 2
    assert f"Mean of the datasets' H: MoCoOp {mean_of_h:.2f}." in table.notes
    assert any("text loss" in note and "all" in note for note in table.notes)
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
        ("imagenet (source)", 71), ("dtd", 40), ("eurosat", 50), ("average of 2", 45),
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
    (line,) = gaps(tree)
    assert "unfinished, at epoch 50/50" in line
    assert line.endswith("SEEDS=1 bash scripts/mocoop/main.sh dtd 16")


def test_missing_runs_come_with_their_command(tmp_path):
    for seed in (1, 2):
        ours(tmp_path, f"base2new/train_base/dtd/shots_16/MoCoOp/a/seed{seed}", accuracy=1, trainer="MoCoOp")
    ours(tmp_path, "base2new/test_new/dtd/shots_16/MoCoOp/a/seed1", accuracy=1, trainer="MoCoOp")
    assert gaps(collect(tmp_path)) == [
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
    gaps(tree)


@pytest.mark.parametrize("style", ["plain", "github", "latex", "csv", "json"])
def test_formats(tmp_path, style):
    ours(tmp_path / "runs", "fewshot/dtd/shots_16/CoOp/a/seed1", accuracy=50.126, trainer="CoOp")
    ours(tmp_path / "runs", "fewshot/dtd/shots_16/LASP/a/seed1", accuracy=60, trainer="LASP")
    out = tmp_path / "table"
    command = [
        sys.executable,
        "parse_results.py",
        str(tmp_path / "runs"),
        "--format",
        style,
        "--out",
        str(out),
        "--verbose",
    ]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    text = out.read_text()
    expected = {
        "plain": "50.13",
        "github": "**60.00**",
        "latex": "\\textbf{60.00}",
        "csv": "dtd,CoOp,16 shots,50.1260,0.0000,1",
        "json": '"accuracy": 50.126',
    }
    assert expected[style] in text


def test_a_missing_folder(tmp_path):
    process = subprocess.run([sys.executable, "parse_results.py", "nowhere"], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 1
    assert process.stderr == "error: no folder nowhere: give the folder that holds the runs\n"


def test_a_thousand_runs(tmp_path):
    for i in range(1000):
        theirs(tmp_path, f"dtd/CoOp/rn50_{2 ** (i % 5)}shots/nctx{i // 15}/seed{i % 3}", 80.0)
    begin = time.monotonic()
    tree = collect(tmp_path)
    assert len(tables(tree.runs, "accuracy")) == 1
    assert len(tree.runs) >= 900
    assert time.monotonic() - begin < 10
