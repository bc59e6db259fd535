"""Whole runs against what other projects' own code computed (tests/data/fidelity.json): every step's loss, the accuracy.

These are references: nothing of this project computed them. What only guards against changes is in the other tests.
"""

import json

import numpy as np
import pytest
import torch
from conftest import DATA, fidelity_root, noting_steps, run_train, tensors_in
from dassl.engine import build_trainer
from dassl.optim import build_optimizer
from dassl.utils import set_random_seed
from yacs.config import CfgNode

import datasets
import train
from trainers import methods
from trainers.core.training.trainer import PromptTrainer
from trainers.linear_probe.trainer import best_strength, fit

RUNS = json.loads((DATA / "fidelity.json").read_text())["runs"]
SEARCHES = json.loads((DATA / "optimisers.json").read_text())


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    return fidelity_root(tmp_path_factory.mktemp("fidelity"))


def words(root, clip_file, out, trainer, settings):
    given = [str(word) for pair in settings.items() for word in pair]
    return [
        "--root", str(root), "--seed", "1", "--trainer", trainer, "--backbone", str(clip_file), "--output-dir", str(out),
        "--dataset-config-file", "configs/datasets/caltech101.yaml",
        "--config-file", f"configs/trainers/{trainer}/small.yaml",
        "DATASET.NUM_SHOTS", "16", "DATALOADER.NUM_WORKERS", "1", "INPUT.RRCROP_SCALE", "(0.5, 1.0)",
        "INPUT.TRANSFORMS", '["random_resized_crop", "random_flip", "normalize"]', *given,
    ]  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_same_losses_and_accuracy(name, root, tiny_clip_file, tmp_path, monkeypatch):
    expected = RUNS[name]
    steps = []
    for name, function in noting_steps(steps, in_float64=expected["float64"]).items():
        monkeypatch.setattr(PromptTrainer, name, function)
    methods.register_all()
    datasets.register_all()
    cfg = train.setup_cfg(
        train.parse_arguments(words(root, tiny_clip_file, tmp_path, expected["trainer"], expected["settings"]))
    )
    set_random_seed(1)
    trainer = build_trainer(cfg)
    trainer.train()
    losses = [shown["loss"] for shown in steps]
    if "printed" in expected:  # with four decimals
        assert losses == pytest.approx(expected["losses"], rel=1e-4, abs=1.01e-4)
    else:
        assert losses == pytest.approx(expected["losses"], rel=1e-13 if expected["float64"] else 2e-6)
    assert trainer.results["accuracy"] == expected["accuracy"]


def test_dassls_radam():
    """Twelve steps down p^3 + k p, with weight decay."""
    p = torch.nn.Parameter(torch.linspace(-1, 1, 5))
    optim = CfgNode({"NAME": "radam", "LR": 0.05, "WEIGHT_DECAY": 0.1, "ADAM_BETA1": 0.9, "ADAM_BETA2": 0.99})
    optimiser = build_optimizer(None, optim, param_groups=[p])
    for _ in range(12):
        optimiser.zero_grad()
        ((p**3).sum() + (p * torch.arange(5)).sum()).backward()
        optimiser.step()
    assert p.tolist() == pytest.approx(SEARCHES["radam"], rel=1e-5)


@pytest.mark.parametrize(("shots", "seed", "strength", "accuracy"), SEARCHES["probe"])
def test_coops_search_of_the_probe(shots, seed, strength, accuracy):
    """Its own draws, from features that are drawn here as they were for it."""
    rng, C = np.random.default_rng(0), 6
    means_CD = rng.normal(0, 0.35, (C, 24))
    parts = []
    for n in (20, 6, 40):  # train, val, test
        labels_N = np.repeat(np.arange(C), n)
        parts.append(((means_CD[labels_N] + rng.normal(0, 1, (len(labels_N), 24))).astype(np.float32), labels_N))
    np.random.seed(seed)
    drawn = []
    for (features_ND, labels_N), n in zip(parts[:2], (shots, min(shots, 4)), strict=True):
        chosen = [i for c in range(C) for i in np.random.choice(np.where(labels_N == c)[0], size=n, replace=False)]
        drawn.append((features_ND[chosen], labels_N[chosen]))
    found, solver = best_strength(*drawn, search="coop")
    weight_CD, bias_C = fit(drawn[0], found, solver)
    features_ND, labels_N = parts[2]
    right_N = np.argmax(features_ND @ weight_CD.T + bias_C, 1) == labels_N
    assert found == pytest.approx(strength)
    assert 100 * right_N.mean() == pytest.approx(accuracy, abs=0.01)


def test_a_checkpoint_of_mocoops_authors_gives_their_accuracy(root, tiny_clip_file, tmp_path):
    """Trained on base classes by their code as it is, with words after the class name, which then train EOT's vector too.

    Their file also holds the whole CLIP and the embeddings of the class names, which are not taken.
    """
    groups = RUNS["MoCoOp ucf base"]["settings"]["TRAINER.MOCOOP.TEMPLATE_GROUPS"]
    state = tensors_in("released_mocoop.npz")
    state |= {"prompt_learner.token_prefix_0": torch.zeros(4, 1, 64), "logit_scale": torch.tensor(4.6)}
    (tmp_path / "trained" / "prompt_learner").mkdir(parents=True)
    torch.save({"state_dict": state, "epoch": 4}, tmp_path / "trained" / "prompt_learner" / "model.pth.tar-4")
    settings = {"DATASET.SUBSAMPLE_CLASSES": "base", "TRAINER.MOCOOP.TEMPLATE_GROUPS": groups}
    process = run_train(
        *words(root, tiny_clip_file, tmp_path / "out", "MoCoOp", settings),
        "--eval-only", "--model-dir", tmp_path / "trained", "--load-epoch", 4,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert json.loads((tmp_path / "out" / "results.json").read_text())["accuracy"] == 50.0
