"""Heads on frozen features beside their authors' code (tests/data/leaders/), which was given the features drawn here.

The authors' functions were made to start on a CPU in float64 (no .cuda(), .half(), .float(); a number read as numpy does
not allow it any more) and not otherwise changed.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import CLASSES as NAMES
from conftest import golden_in_double, tensors_in
from torch.nn import functional as F

from trainers.core.heads.search import Labelled, choose, parts_of
from trainers.core.settings.configure import configure
from trainers.gda.model import gaussian_classifier
from trainers.gda.trainer import ALPHAS, GDA
from trainers.lp_plus_plus.model import steps_of_lp
from trainers.lp_plus_plus.trainer import LPPlusPlus
from trainers.tip_adapter.model import TipCLIP
from trainers.tip_adapter.options import TipAdapterOptions
from trainers.tip_adapter.trainer import TipAdapter, constants, grid, right_of_grid
from trainers.tip_adapter_f.model import TrainedTipCLIP

C, D = 6, 64


@pytest.fixture(scope="module")
def drawn():
    """Features of three views of five shots of each class, of validation and test pictures, and text features; float64."""
    g = torch.Generator().manual_seed(3)
    centre = torch.randn(C, D, generator=g, dtype=torch.float64)

    def part(count):
        labels = torch.arange(C).repeat_interleave(count)
        return 0.9 * centre[labels] + 2.2 * torch.randn(C * count, D, generator=g, dtype=torch.float64), labels

    train, labels = part(5)
    views = train + 0.6 * torch.randn(3, *train.shape, generator=g, dtype=torch.float64)
    val, test = (Labelled(F.normalize(features, dim=-1), own) for features, own in (part(8), part(12)))
    text = F.normalize(centre + 1.6 * torch.randn(C, D, generator=g, dtype=torch.float64), dim=-1)
    return SimpleNamespace(views=views, labels=labels, val=val, test=test, text=text)


def tip(kind, drawn):
    """Tip-Adapter in float64 on the drawn features, at CLIP's scale."""
    keys = F.normalize(drawn.views.mean(0), dim=-1)
    clip = golden_in_double()
    model = kind(clip, NAMES, ["a photo of a {}."], keys, drawn.labels).double()
    model.text_CD = drawn.text
    with torch.no_grad():
        model.logit_scale.fill_(np.log(100))
    return model


def best(model, drawn):
    """What the search on validation pictures finds."""
    constant = {"beta_max": 12, "alpha_max": 5, "alpha": 3}
    right_K = right_of_grid(model, model.keys_ND.detach(), model.labels_N, drawn.val, constant)
    # as many, a few pictures at a time
    assert torch.equal(right_K, right_of_grid(model, model.keys_ND.detach(), model.labels_N, drawn.val, constant, 7))
    return grid(constant)[int(right_K.argmax())]


def test_tip_adapter(drawn):
    expected, model = tensors_in("leaders/tip_adapter.npz"), tip(TipCLIP, drawn)
    torch.testing.assert_close(model.keys_ND.detach(), expected["keys"], rtol=1e-12, atol=1e-14)
    beta, alpha = best(model, drawn)
    assert (beta, alpha) == pytest.approx((float(expected["beta"]), float(expected["alpha"])), rel=1e-12)
    model.beta.fill_(beta)
    model.alpha.fill_(alpha)
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(drawn.test.features_ND), expected["logits"], rtol=1e-10, atol=1e-10)


def test_eight_steps_of_tip_adapter_f(drawn):
    """Batches of every second picture, the first view; AdamW with eps 1e-4, a cosine of steps; then the search."""
    expected, model = tensors_in("leaders/tip_adapter.npz"), tip(TrainedTipCLIP, drawn)
    model.alpha.fill_(3)
    optimiser = torch.optim.AdamW(model.trainable().values(), lr=0.001, eps=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 8)
    losses = []
    for step in range(8):
        optimiser.zero_grad()
        loss = F.cross_entropy(model(drawn.views[0][step % 2 :: 2]), drawn.labels[step % 2 :: 2])
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    np.testing.assert_allclose(losses, expected["losses"].numpy(), rtol=1e-10)
    torch.testing.assert_close(model.keys_ND.detach(), expected["trained"], rtol=1e-9, atol=1e-11)
    found = float(expected["trained_beta"]), float(expected["trained_alpha"])
    assert best(model, drawn) == pytest.approx(found, rel=1e-12)


def test_gda(drawn):
    expected = tensors_in("leaders/gda.npz")
    weight, bias = gaussian_classifier(F.normalize(drawn.views, dim=-1).flatten(0, 1), drawn.labels.repeat(3), C)

    def logits(tested, alpha):
        return 100 * tested.features_ND @ drawn.text.T + alpha * (tested.features_ND @ weight.T + bias)

    for alpha, wanted in zip(ALPHAS, expected["val"], strict=True):
        atol = 1e-12 * float(wanted.abs().max())
        torch.testing.assert_close(logits(drawn.val, alpha), wanted, rtol=1e-9, atol=atol)
    right = [float((logits(drawn.val, alpha).argmax(1) == drawn.val.labels_N).sum()) for alpha in ALPHAS]
    assert ALPHAS[int(np.argmax(right))] == expected["alpha"]
    own = logits(drawn.test, float(expected["alpha"]))
    torch.testing.assert_close(own, expected["logits"], rtol=1e-9, atol=1e-12 * float(own.abs().max()))


def test_three_hundred_steps_of_lp(drawn):
    """Every step's accuracy on validation pictures, in the authors' order of random numbers."""
    expected = tensors_in("leaders/lp_plus_plus.npz")
    torch.manual_seed(5)
    bias = torch.nn.Linear(D, C).bias.detach().double()
    heads = list(steps_of_lp(F.normalize(drawn.views[0], dim=-1), drawn.labels, drawn.text, bias, 300))

    def accuracy(head, tested):
        return 100 * float(((tested.features_ND @ head[0].T + head[1]).argmax(1) == tested.labels_N).double().mean())

    own = [accuracy(head, drawn.val) for head in heads]
    np.testing.assert_allclose(own, expected["val"].numpy(), rtol=1e-12)
    last_best = max(i for i, value in enumerate(own) if value == max(own))
    assert 0 < last_best < 299
    assert accuracy(heads[last_best], drawn.test) == pytest.approx(float(expected["accuracy"]), rel=1e-12)
    train = F.normalize(drawn.views[0], dim=-1)
    losses = [float(F.cross_entropy(train @ weight.T + b, drawn.labels)) for weight, b in heads]
    # theirs are computed before the step, and alpha moves behind every tenth
    np.testing.assert_allclose(losses[:-1], expected["losses"].numpy()[1:], rtol=1e-8)


# --- what constants are chosen on --------------------------------------------------------------------------------------


def test_parts_hold_out_one_picture_of_each_class_in_turn():
    """Of sixteen shots a quarter, of two shots one each, and never a class's only picture."""
    labels = torch.tensor([0] * 16 + [1] * 2 + [2])
    parts = parts_of(labels)
    held_out = [[int(part[labels == y].sum()) for y in range(3)] for part in parts]
    assert held_out == [[4, 1, 0], [4, 1, 0], [4, 0, 0], [4, 0, 0]]
    assert torch.stack(parts).sum(0).tolist() == [1] * 18 + [0]
    assert parts_of(torch.tensor([0, 1, 2])) == []


def test_the_first_of_the_best_is_chosen_and_said(capsys):
    shots = Labelled(torch.eye(4), torch.tensor([0, 0, 1, 1]))

    def score(head, tested):
        assert not torch.isin(tested.features_ND.argmax(1), head).any()  # not fitted to what it is tried on
        return torch.tensor([0, 1, 1]) * len(tested.labels_N)

    fit = torch.nonzero
    assert choose("k =", [5, 6, 7], fit, score, shots, None, 9) == 6
    assert capsys.readouterr().out == "k = 6, chosen on the shots, in 2 parts: 100.0% right\n"
    assert choose("k =", [5, 6, 7], lambda kept: torch.tensor([9]), lambda head, tested: torch.tensor([3, 3, 1]), shots,
                  Labelled(torch.ones(4, 4), torch.zeros(4), "four others"), 9) == 5  # fmt: skip
    assert "chosen on four others: 75.0% right" in capsys.readouterr().out
    alone = Labelled(torch.eye(2), torch.tensor([0, 1]))
    assert choose("k =", [5, 6], fit, score, alone, None, 9) == 9
    assert "one picture per class leaves none to choose on" in capsys.readouterr().out


def test_the_authors_constants_by_dataset():
    assert constants("EuroSAT", TipAdapterOptions()) == {"beta_max": 12, "alpha_max": 10, "alpha": 2}
    assert constants("Mine", TipAdapterOptions(alpha=4)) == {"beta_max": 12, "alpha_max": 10, "alpha": 4}
    with pytest.raises(ValueError, match=r"BETA_MAX is 0: use a number above 0\.1"):
        TipAdapterOptions(beta_max=0)


def test_a_class_without_pictures_is_never_the_likeliest():
    features = F.normalize(torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), dim=-1)
    weight, bias = gaussian_classifier(features, torch.tensor([0, 0, 0, 0, 2, 2, 2, 2]), 3)
    assert weight[1].abs().sum() == 0
    assert bias[1] == bias.min()
    assert weight.isfinite().all()


@pytest.mark.parametrize("kind", [TipAdapter, GDA, LPPlusPlus])
def test_templates_on_imagenet_are_seven_or_the_one_given(kind):
    assert len(kind.templates_of(configure([], [("DATASET.NAME", "ImageNet")]))) == 7
    given = [("DATASET.NAME", "ImageNet"), ("DATASET.TEMPLATE", "a {}.")]
    assert kind.templates_of(configure([], given)) == ["a {}."]
