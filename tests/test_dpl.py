"""Differentiable prompt learning beside its authors' code (tests/data/leaders/dpl_*.npz, whole/dpl.npz), in float64.

Their code was made to start on a CPU (no .cuda(), CLIP from a file, widths and numbers of blocks read from the model) and
not otherwise changed; where the distillation is compared, the 0 that it is multiplied by was made 1.
"""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from conftest import CLASSES as NAMES
from conftest import (
    eight_batches,
    fidelity_root,
    golden_state,
    in_double,
    literate_state,
    noting_steps,
    run_train,
    tensors_in,
)
from dassl.engine import build_trainer
from dassl.utils import set_random_seed
from test_runs import arguments

import datasets
import train
from trainers import methods
from trainers.core.clip.backbones.openai import build_model
from trainers.core.training import checkpoints
from trainers.core.training.trainer import PromptTrainer
from trainers.dpl.model import SEARCHED_WITH, DplCLIP
from trainers.dpl.trainer import DPL, Walk
from trainers.promptsrc.trainer import PromptSRC
from trainers.zsclip.model import HardPromptCLIP

LEARNER = "prompt_learner."
THEIRS = {"vision": "img", "text": "txt"}


def searched(name):
    """contexts.vision.0.1 -> prompt_learner.ctx_img_lst.0.1"""
    _, tower, *place = name.split(".")
    return ".".join([f"{LEARNER}ctx_{THEIRS[tower]}_lst", *place])


def clip_of(state):
    return in_double(build_model(state).float().eval())


def put(own, theirs, names):
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(theirs[f"start/{names(name)}"])


def same(own, theirs, names, kind):
    for name, tensor in own.items():
        expected = theirs[f"{kind}/{names(name)}"]
        scale = float(expected.abs().max()) if expected.numel() else 1.0
        torch.testing.assert_close(tensor.detach(), expected, rtol=1e-8, atol=1e-10 * scale)


@pytest.mark.parametrize("encoder", ["fast", "plain"])
def test_eight_steps_of_the_search(encoder):
    theirs = tensors_in("leaders/dpl_search.npz")
    model = DplCLIP(clip_of(golden_state()), NAMES, SEARCHED_WITH, [SEARCHED_WITH], text_encoder=encoder).double()
    alphas = {f"alphas.{tower}": alpha for tower, alpha in model.alphas.items()}

    def names(name):
        kind, tower, *_ = name.split(".")
        return searched(name) if kind == "contexts" else f"{LEARNER}alphas_{THEIRS[tower]}"

    put(model.trainable() | alphas, theirs, names)
    adam = torch.optim.Adam(alphas.values(), 0.0035, betas=(0.5, 0.999))
    sgd = torch.optim.SGD(model.trainable().values(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    images, labels = eight_batches()
    images_val, labels_val = eight_batches(2)
    losses, losses_val = [], []
    for step in range(8):
        for alpha in alphas.values():
            alpha.requires_grad_(True)
        loss = model.losses(images_val[step], labels_val[step])["cls"]
        grads = torch.autograd.grad(loss, list(alphas.values()))
        for alpha, grad in zip(alphas.values(), grads, strict=True):
            alpha.requires_grad_(False)
            alpha.grad = grad
        if step == 0:
            same({name: alpha.grad for name, alpha in alphas.items()}, theirs, names, "grad")
        adam.step()
        losses_val.append(loss.item())
        sgd.zero_grad()
        loss = model.losses(images[step], labels[step])["cls"]
        loss.backward()
        if step == 0:
            same({name: p.grad for name, p in model.trainable().items()}, theirs, names, "grad")
        sgd.step()
        losses.append(loss.item())
    np.testing.assert_allclose(losses, theirs["losses"].numpy(), rtol=1e-10)
    np.testing.assert_allclose(losses_val, theirs["losses_validation"].numpy(), rtol=1e-10)
    same(model.trainable() | alphas, theirs, names, "after")
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(images[0]), theirs["logits"], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("encoder", ["fast", "plain"])
@pytest.mark.parametrize("which", ["found", "found_ensemble", "found_distilled"])
def test_eight_steps_of_a_network_that_was_found(which, encoder):
    theirs = tensors_in(f"leaders/dpl_{which}.npz")
    lengths = [theirs[f"lengths/{tower}"].tolist() for tower in ("image", "text")]
    sixty = PromptSRC.templates_of(None)
    templates = [SEARCHED_WITH] if which == "found" else sixty
    clip = clip_of(golden_state() if which == "found" else literate_state())
    model = DplCLIP(clip, NAMES, SEARCHED_WITH, templates, lengths=lengths, distills=True, text_encoder=encoder)
    if which == "found_distilled":  # their student reads one template, their teacher the last of sixty
        student = DplCLIP(clip, NAMES, SEARCHED_WITH, [SEARCHED_WITH], lengths=lengths)
        model.plan, model.fixed_KW = student.plan, student.fixed_KW
    model.double()

    def names(name):
        return searched(name).rpartition(".")[0]

    put(model.trainable(), theirs, names)
    sgd = torch.optim.SGD(model.trainable().values(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    images, labels = eight_batches()
    losses = []
    for step in range(8):
        sgd.zero_grad()
        parts = model.losses(images[step], labels[step])
        if which != "found":
            assert parts["distill"].item() == pytest.approx(theirs["losses_distillation"][step].item(), rel=1e-9)
        loss = parts["cls"] + (parts["distill"] if which == "found_distilled" else 0)
        loss.backward()
        if step == 0:
            same({name: p.grad for name, p in model.trainable().items()}, theirs, names, "grad")
        sgd.step()
        losses.append(loss.item())
    np.testing.assert_allclose(losses, theirs["losses"].numpy(), rtol=1e-10)
    same(model.trainable(), theirs, names, "after")
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(images[0]), theirs["logits"], rtol=1e-8, atol=1e-9)


def trainer_of(root, clip_file, out, *settings):
    given = [
        "--root", root, "--seed", 1, "--trainer", "DPL", "--backbone", clip_file, "--output-dir", out,
        "--dataset-config-file", "configs/datasets/caltech101.yaml", "--config-file", "configs/trainers/DPL/small.yaml",
        "DATASET.NUM_SHOTS", 5, "DATALOADER.NUM_WORKERS", 0, "INPUT.TRANSFORMS", '["normalize"]',
        "DATALOADER.TRAIN_X.BATCH_SIZE", 4, "OPTIM.LR", 0.02, "OPTIM.MAX_EPOCH", 1, "TRAINER.DPL.SEARCH_EPOCHS", 3,
        "TRAINER.DPL.SEARCH_LR", 0.0035, *settings,
    ]  # fmt: skip
    set_random_seed(1)
    return build_trainer(train.setup_cfg(train.parse_arguments([str(word) for word in given])))


def test_a_whole_search_of_the_authors_trainer(tiny_clip_file, tmp_path, monkeypatch):
    """Thirty steps with their validation batch, which is always the first, and the random numbers that it takes."""
    theirs, steps = tensors_in("leaders/whole/dpl.npz"), []
    for name, function in noting_steps(steps, in_float64=True).items():
        monkeypatch.setattr(PromptTrainer, name, function)

    def always_the_first(self, count, first):
        while True:
            torch.empty((), dtype=torch.int64).random_()
            yield list(range(16))

    monkeypatch.setattr(DPL, "validation_walk", always_the_first)
    validated = []
    search_step = DPL._search_step

    def noted(self):
        shown = search_step(self)
        validated.append(shown["loss_val"].item())
        return shown

    monkeypatch.setattr(DPL, "_search_step", noted)
    found = {}
    end = DPL._end_search

    def ended(self):
        found.update(alphas={tower: alpha.clone() for tower, alpha in self.model.alphas.items()})
        self.set_model_mode("eval")
        with torch.no_grad():
            batches = [self.model(self.parse_batch_test(batch)[0]) for batch in self.test_loader]
        self.set_model_mode("train")
        found["logits"] = torch.cat(batches)
        end(self)

    monkeypatch.setattr(DPL, "_end_search", ended)
    methods.register_all()
    datasets.register_all()
    ours = trainer_of(fidelity_root(tmp_path / "data"), tiny_clip_file, tmp_path / "out")
    with torch.no_grad():
        for name, tensor in ours.model.trainable().items():
            tensor.copy_(theirs[f"start/{searched(name)}"])
        for tower, alpha in ours.model.alphas.items():
            alpha.copy_(theirs[f"start/{LEARNER}alphas_{THEIRS[tower]}"])
    set_random_seed(1)
    ours.train()
    np.testing.assert_allclose([step["loss"] for step in steps[:30]], theirs["losses"].numpy(), rtol=1e-10)
    np.testing.assert_allclose(validated, theirs["losses_validation"].numpy(), rtol=1e-10)
    for tower, alpha in found["alphas"].items():
        torch.testing.assert_close(
            alpha.double(), theirs[f"after/{LEARNER}alphas_{THEIRS[tower]}"], rtol=1e-9, atol=1e-12
        )
    torch.testing.assert_close(found["logits"].double(), theirs["logits_test"], rtol=1e-9, atol=1e-9)
    search = json.loads((tmp_path / "out" / "search.json").read_text())
    lengths = [theirs["lengths/image"].tolist(), theirs["lengths/text"].tolist()]
    assert [search[tower]["lengths"] for tower in ("vision", "text")] == lengths
    assert yaml.safe_load((tmp_path / "out" / "lengths.yaml").read_text()) == lengths
    assert len(steps) == 40
    assert np.isfinite([step["loss"] for step in steps]).all()


def test_the_walk_sees_every_validation_picture_as_often_and_goes_on_anywhere():
    walk = iter(Walk(count=10, batch=4, seed=1))
    taken = [next(walk) for _ in range(10)]
    counts = np.bincount([number for batch in taken for number in batch])
    assert counts.tolist() == [4] * 10
    assert taken[:5] != taken[5:]
    assert [len(set(batch)) for batch in taken[:2]] == [4, 4]
    later = iter(Walk(count=10, batch=4, seed=1, first=7))
    assert [next(later) for _ in range(3)] == taken[7:]
    assert next(iter(Walk(count=3, batch=7, seed=0)))  # a batch of more pictures than there are


def test_lengths_that_were_found_are_used_again(mini_root, tiny_clip_file, tmp_path):
    """A file of another run; and what does not fit is refused in one line."""
    file = tmp_path / "lengths.yaml"
    file.write_text("- [0, 2]\n- [3, 0]\n")

    def with_lengths(out):
        given = arguments(mini_root, tiny_clip_file, tmp_path / out, "DPL")
        at = given.index("TRAINER.DPL.SEARCH_EPOCHS")
        return run_train(*given[:at], *given[at + 2 :], "TRAINER.DPL.LENGTHS", file)

    done = with_lengths("out")
    assert done.returncode == 0, done.stderr
    state = torch.load(checkpoints.latest(tmp_path / "out"), weights_only=True)
    assert state["state_dict"]["stage"] == 2
    assert state["state_dict"]["alphas.vision"].argmax(1).tolist() == [0, 2]
    assert "Training 320 parameters" in done.stdout, done.stdout
    for text, wanted in (
        ("- [0, 2]\n", "use two"),
        ("- [0]\n- [3, 0]\n", "this one has 2"),
        ("- [0, 7]\n- [3, 0]\n", "use 0 to 6"),
    ):
        file.write_text(text)
        failed = with_lengths("bad")
        assert failed.returncode == 1
        assert wanted in failed.stderr, failed.stderr
        assert failed.stderr.count("\n") == 1, failed.stderr


def test_a_search_needs_validation_pictures_and_evaluating_does_not(mini_root, tiny_clip_file, tmp_path):
    shutil.copytree(mini_root, tmp_path / "data")
    split = tmp_path / "data" / "caltech-101" / "split_zhou_Caltech101.json"
    split.write_text(json.dumps(json.loads(split.read_text()) | {"val": []}))
    trained = run_train(*arguments(mini_root, tiny_clip_file, tmp_path / "out", "DPL"))
    assert trained.returncode == 0, trained.stderr
    given = arguments(tmp_path / "data", tiny_clip_file, tmp_path / "other", "DPL")
    failed = run_train(*given)
    assert "searches on validation pictures, and Caltech101 has none: set TRAINER.DPL.LENGTHS" in failed.stderr
    tested = run_train(*given, "--eval-only", "--model-dir", tmp_path / "out")
    assert tested.returncode == 0, tested.stderr
    numbers = [json.loads((tmp_path / out / "results.json").read_text())["accuracy"] for out in ("out", "other")]
    assert numbers[0] == numbers[1]


def test_a_search_that_finds_no_context_ends_as_zero_shot_clip(
    mini_root, tiny_clip_file, tmp_path, monkeypatch, capsys
):
    methods.register_all()
    datasets.register_all()
    ours = trainer_of(mini_root, tiny_clip_file, tmp_path / "out", "TRAINER.DPL.SEARCH_EPOCHS", 1)
    monkeypatch.setattr(DPL, "_search_step", lambda self: {"loss_val": torch.zeros(())})
    with torch.no_grad():
        for alphas in ours.model.alphas.values():
            alphas[:, 0] = 9
    ours.train()
    assert "so this is zero-shot CLIP" in capsys.readouterr().out
    names = ours.classnames
    plain = HardPromptCLIP(build_model(golden_state()).float().eval(), names, ["a photo of a {}."]).eval()
    images = torch.randn(3, 3, 32, 32)
    ours.model.plan, ours.model.fixed_KW = ours.model.search_plan, None
    with torch.no_grad():
        torch.testing.assert_close(ours.model.eval()(images), plain(images))


def test_nothing_to_train_is_refused():
    clip = build_model(golden_state()).float().eval()
    for options, said in (({"lengths": [[0, 0], [0, 0]]}, "nothing would be trained"),
                          ({"n_ctx_text": 0, "n_ctx_vision": 0}, "give one of the towers contexts")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            DplCLIP(clip, NAMES, SEARCHED_WITH, [SEARCHED_WITH], **options)
