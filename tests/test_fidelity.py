"""Whole runs on compat/dassl against what the reference code printed on Dassl itself (tests/data/fidelity.json)."""

import json
import re

import pytest
from conftest import DATA, fidelity_root, run_train

REFERENCE = json.loads((DATA / "fidelity.json").read_text())


@pytest.mark.parametrize("trainer", ["CoOp", "CoCoOp", "MoCoOp", "LASP"])
def test_same_draws_losses_and_accuracy(trainer, tiny_clip_file, tmp_path):
    expected = REFERENCE[trainer]
    process = run_train(
        "--root", fidelity_root(tmp_path / "data"), "--seed", 1, "--trainer", trainer, "--backbone", tiny_clip_file,
        "--dataset-config-file", "configs/datasets/caltech101.yaml",
        "--config-file", f"configs/trainers/{trainer}/small.yaml", "--output-dir", tmp_path / "out",
        "DATASET.NUM_SHOTS", 16, "OPTIM.MAX_EPOCH", expected["epochs"], "OPTIM.LR", expected["lr"],
        "DATALOADER.TRAIN_X.BATCH_SIZE", expected["batch"], "DATALOADER.NUM_WORKERS", 1, "TRAIN.PRINT_FREQ", 1,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    losses = [float(x) for x in re.findall(r"loss (\d+\.\d+) ", process.stdout)]
    assert losses == pytest.approx(expected["losses"], rel=1e-4, abs=1.01e-4)  # printed with four decimals
    accuracy = float(re.findall(r"\* accuracy: (\S+)%", process.stdout)[-1])
    assert accuracy == expected["accuracy"]
