"""Whole runs of published methods through their authors' trainers, data loaders and Dassl, and through ours.

Eight classes of 16 shots in CoOp's layout, the base half, three epochs in float64 from the authors' start values, then both
halves tested (tests/data/leaders/whole/). Their code was made to start and not otherwise changed; the random generators
were set anew before the first epoch, so that the order of pictures does not depend on what a constructor draws. TCP has its
README's Adam; PLOT++ goes from its first stage to the second without a new order. CLIP-SVD, CLIP-LoRA (with its dropout)
and 2SFS have loops and loaders of their own; the generators of the first two were set anew before shots were drawn, too,
and 2SFS changes its stage where an epoch ends.
"""

import numpy as np
import pytest
import torch
from conftest import DATA, fidelity_root, noting_steps, tensors_in
from dassl.engine import build_trainer
from dassl.utils import set_random_seed
from test_leaders import METHODS, svd_name

import datasets
import train
from trainers import methods
from trainers.core.training.trainer import PromptTrainer

SGD = ["OPTIM.NAME", "sgd", "OPTIM.LR", 0.02]
RUNS = {
    "kgcoop": ("KgCoOp", SGD),
    "prograd": ("ProGrad", [*SGD, "TRAINER.PROGRAD.N_CTX", 16]),
    "ivlp": ("IVLP", [*SGD, "TRAINER.IVLP.PROMPT_DEPTH_TEXT", 2, "TRAINER.IVLP.PROMPT_DEPTH_VISION", 2]),
    "maple": ("MaPLe", [*SGD, "TRAINER.MAPLE.PROMPT_DEPTH", 2]),
    "promptsrc": (
        "PromptSRC",
        [*SGD, "TRAINER.PROMPTSRC.PROMPT_DEPTH_TEXT", 2, "TRAINER.PROMPTSRC.PROMPT_DEPTH_VISION", 2,
         "TRAINER.PROMPTSRC.GPA_MEAN", 2, "TRAINER.PROMPTSRC.GPA_STD", 1],
    ),
    "tcp": ("TCP", ["OPTIM.LR", 0.002, "OPTIM.EPS", 1e-3, "TRAINER.TCP.BLOCK", 1]),
    "mmrl": ("MMRL", ["OPTIM.LR", 0.001, "TRAINER.MMRL.DIM", 16, "TRAINER.MMRL.FIRST_BLOCK", 0]),
    "mmrl_plus_plus": (
        "MMRLpp",
        ["OPTIM.LR", 0.01, "TRAINER.MMRLPP.DIM", 16, "TRAINER.MMRLPP.FIRST_BLOCK", 0, "TRAINER.MMRLPP.MAP_RANK", 2,
         "TRAINER.MMRLPP.PROJ_RANK", 8],
    ),
    "coprompt": (
        "CoPrompt",
        ["OPTIM.LR", 0.0035, "INPUT.TRANSFORMS", '["randaugment", "normalize"]', "TRAINER.COPROMPT.N_CTX", 4,
         "TRAINER.COPROMPT.PROMPT_DEPTH", 2, "TRAINER.COPROMPT.WEIGHT", 1.0,
         "TRAINER.COPROMPT.SENTENCES", DATA / "leaders" / "whole" / "coprompt_sentences.json"],
    ),
    "clip_svd": ("CLIPSVD", ["OPTIM.LR", 0.02, "TRAINER.CLIPSVD.STEPS_PER_SHOT", 0, "TRAINER.CLIPSVD.SWINGS", True]),
    "clip_lora": ("CLIPLoRA", ["OPTIM.LR", 0.01, "TRAINER.CLIPLORA.STEPS_PER_SHOT", 2]),
    "two_sfs": ("TwoSFS", ["OPTIM.LR", 0.008, "TRAINER.TWOSFS.STEPS_PER_SHOT", 2, "TRAINER.TWOSFS.FIRST_STAGE", 0.75]),
    "plot_plus_plus": ("PLOTPP", [*SGD, "OPTIM.MAX_EPOCH", 6]),
}  # fmt: skip


def trainer_of(method, classes, root, clip_file, out):
    name, settings = RUNS[method]
    given = [
        "--root", root, "--seed", 1, "--trainer", name, "--backbone", clip_file, "--output-dir", out,
        "--dataset-config-file", "configs/datasets/caltech101.yaml", "--config-file", f"configs/trainers/{name}/small.yaml",
        "DATASET.NUM_SHOTS", 16, "DATASET.SUBSAMPLE_CLASSES", classes, "DATALOADER.NUM_WORKERS", 1,
        "INPUT.TRANSFORMS", '["random_resized_crop", "random_flip", "normalize"]', "INPUT.RRCROP_SCALE", "(0.08, 1.0)",
        "DATALOADER.TRAIN_X.BATCH_SIZE", 8, "DATALOADER.TEST.BATCH_SIZE", 20, "OPTIM.MAX_EPOCH", 3, *settings,
    ]  # fmt: skip
    set_random_seed(1)
    return build_trainer(train.setup_cfg(train.parse_arguments([str(word) for word in given])))


def places_of(method, theirs):
    """Where each of their start values goes: a tensor of ours, and the place in it."""
    starts = [name for name in theirs if name.startswith("start/")]
    if method == "clip_svd":
        return {name: svd_name(name.removeprefix("start/")) for name in starts}
    if method == "two_sfs":
        return {name: (_of_a_tower(name.removeprefix("start/")), ...) for name in starts}
    known = {"ctx": "prompt_learner.ctx", "ctx_vision": "prompt_learner.ctx_vision"}
    names = known if method == "plot_plus_plus" else METHODS[method][2]
    return {f"start/{name}": (ours, ...) for ours, name in names.items() if f"start/{name}" in starts}


def _of_a_tower(name):
    rest = name.removeprefix("visual.")
    return f"image_encoder.{rest}" if rest != name else f"text_encoder.model.{name}"


def logits_of(trainer):
    trainer.set_model_mode("eval")
    with torch.no_grad():
        return torch.cat([trainer.model(trainer.parse_batch_test(batch)[0]) for batch in trainer.test_loader])


@pytest.mark.slow
@pytest.mark.parametrize("method", RUNS)
def test_a_whole_run_of_the_authors_trainer(method, literate_clip_file, tmp_path, monkeypatch):
    theirs = tensors_in(f"leaders/whole/{method}.npz")
    steps = []
    for name, function in noting_steps(steps, in_float64=True).items():
        monkeypatch.setattr(PromptTrainer, name, function)
    methods.register_all()
    datasets.register_all()
    root = fidelity_root(tmp_path / "data")
    base = trainer_of(method, "base", root, literate_clip_file, tmp_path / "base")
    own, places = base.model.trainable(), places_of(method, theirs)
    assert {ours for ours, _ in places.values()} == own.keys() - {"classifier"}  # 2SFS's, which starts from the text
    with torch.no_grad():
        for name, (ours, place) in places.items():
            own[ours][place] = theirs[name].view_as(own[ours][place])
    set_random_seed(1)
    base.train()
    np.testing.assert_allclose([step["loss"] for step in steps], theirs["losses"].numpy(), rtol=1e-12)
    new = trainer_of(method, "new", root, literate_clip_file, tmp_path / "new")
    new.load_model(str(tmp_path / "base"))
    assert [base.results["accuracy"], new.test()] == theirs["accuracies"].tolist()
    for trainer, half in ((base, "base"), (new, "new")):
        torch.testing.assert_close(logits_of(trainer).double(), theirs[f"logits_{half}"], rtol=1e-10, atol=1e-10)
