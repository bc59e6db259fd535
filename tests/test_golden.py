"""MixtureCLIP against numbers that the authors' own code computed (tests/data/mocoop_pets.npz, released_steps.npz)."""

import itertools

import numpy as np
import pytest
import torch
from conftest import DATA, VOCABULARY, golden_in_double
from torch.nn import functional as F

from trainers.core.clip.hard_features import hard_features
from trainers.core.clip.losses import gate_target
from trainers.core.clip.mixture import mixture_weights
from trainers.mocoop.trainer import MixtureCLIP


@pytest.fixture(scope="module")
def golden():
    with np.load(DATA / "mocoop_pets.npz") as arrays:
        return {
            name: torch.from_numpy(arrays[name]) if arrays[name].dtype.kind != "U" else arrays[name] for name in arrays
        }


def groups_of(golden, case):
    prompts, sizes = list(golden[f"{case}/prompts"]), golden[f"{case}/groups"].tolist()
    starts = np.cumsum([0, *sizes])
    return [[str(t) for t in prompts[a:b]] for a, b in itertools.pairwise(starts)]


@pytest.fixture(params=["pets", "pets_base"])
def case(request):
    return request.param


@pytest.fixture(params=["fast", "plain"])
def model(request, golden, case, tiny_clip):
    model = MixtureCLIP(
        tiny_clip,
        [str(n) for n in golden[f"{case}/names"]],
        groups_of(golden, case),
        text_classnames=[str(n) for n in golden["classnames"]],
        text_encoder=request.param,
    )
    with torch.no_grad():
        for g, (before, after) in enumerate(zip(model.prompts.before, model.prompts.after, strict=True)):
            before.copy_(golden[f"{case}/param/ctx_before_{g}"])
            after.copy_(golden[f"{case}/param/ctx_after_{g}"])
        model.correction.copy_(golden[f"{case}/param/w"])
        model.router.weight.copy_(golden[f"{case}/param/gate.weight"])
        model.router.bias.copy_(golden[f"{case}/param/gate.bias"])
    return model


def close(got, expected, rtol=1e-5):
    torch.testing.assert_close(
        got, expected, rtol=rtol, atol=rtol * float(expected.abs().max()) if expected.numel() else 0
    )


def test_features(golden, case, model):
    images, labels = golden[f"{case}/images"], golden[f"{case}/labels"]
    C = len(golden[f"{case}/names"])
    image_BD = model.image_features(images)
    text_GAD = model.text_features()
    close(image_BD, golden[f"{case}/image_features"])
    close(text_GAD[:, :C], golden[f"{case}/expert_text_features"])
    close(model.prototypes_GAD, golden[f"{case}/group_features"])
    templates = [t for group in groups_of(golden, case) for t in group]
    close(
        hard_features(model.text_encoder, templates, list(golden["classnames"]), VOCABULARY),
        golden[f"{case}/class_text_features"],
    )
    close(model.prototypes_GAD, golden[f"{case}/grouped_prototypes"])
    router_BG, weights_BG = model.route(image_BD)
    close(router_BG, golden[f"{case}/router_logits"])
    close(weights_BG.gather(1, golden[f"{case}/top2_indices"]), golden[f"{case}/top2_weights"])
    assert torch.equal(weights_BG, mixture_weights(router_BG, 2))
    close(torch.einsum("bg,gcd->bcd", weights_BG, text_GAD[:, :C]), golden[f"{case}/gated_text_features"])
    similarity_BG = model.gate_similarity(image_BD, labels)
    close(similarity_BG, golden[f"{case}/gate_target_raw"])
    close(gate_target(similarity_BG, 2, 10.0), golden[f"{case}/gate_target"])


def test_losses_and_gradients(golden, case, model):
    parts = model.losses(golden[f"{case}/images"], golden[f"{case}/labels"])
    close(parts["logits_BC"], golden[f"{case}/logits"])
    for ours, theirs in (("cls", "loss_image"), ("text", "loss_text"), ("gate", "loss_gate")):
        close(parts[ours], golden[f"{case}/{theirs}"])
    loss = parts["cls"] + 5 * parts["text"] + parts["gate"]
    close(loss, golden[f"{case}/loss_total"])
    loss.backward()
    for g, (before, after) in enumerate(zip(model.prompts.before, model.prompts.after, strict=True)):
        close(before.grad, golden[f"{case}/grad/ctx_before_{g}"], 1e-4)
        assert after.grad is None or after.grad.numel() == golden[f"{case}/grad/ctx_after_{g}"].numel() == 0
    close(model.correction.grad, golden[f"{case}/grad/w"], 1e-4)
    close(model.router.weight.grad, golden[f"{case}/grad/gate.weight"], 1e-4)
    close(model.router.bias.grad, golden[f"{case}/grad/gate.bias"], 1e-4)
    norms = {k.removeprefix(f"{case}/grad_ln/"): v for k, v in golden.items() if k.startswith(f"{case}/grad_ln/")}
    tuned = {n: p for n, p in model.image_encoder.named_parameters() if p.requires_grad}
    assert tuned.keys() == norms.keys()
    for name, expected in norms.items():
        close(tuned[name].grad, expected, 1e-4)


def test_evaluation_logits(golden, case, model):
    model.eval()
    with torch.no_grad():
        close(model(golden[f"{case}/images"]), golden[f"{case}/logits_eval"])


def test_initial_soft_prompts_are_the_first_templates(golden, case, tiny_clip):
    """Before training, each expert says what its group's first template says."""
    groups = groups_of(golden, case)
    names = [str(n) for n in golden["classnames"]]
    model = MixtureCLIP(tiny_clip, names, groups)
    hard = hard_features(model.text_encoder, [g[0] for g in groups], names, VOCABULARY)
    torch.testing.assert_close(model.text_features(), F.normalize(hard, dim=-1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("part", ["all", "base"])
def test_training_with_the_prompts_of_the_authors_release(part):
    """Eight steps in float64, losses and what was learned; their code as it is, with words before and after the name."""
    with np.load(DATA / "released_steps.npz") as arrays:
        theirs = {name.removeprefix(f"{part}/"): arrays[name] for name in arrays.files}
    names = [str(name) for name in theirs["names"]]
    starts = np.cumsum([0, *theirs["groups"]])
    groups = [[str(t) for t in theirs["prompts"][a:b]] for a, b in itertools.pairwise(starts)]
    own = names[:4] if part == "base" else names
    clip = golden_in_double()
    model = MixtureCLIP(clip, own, groups, names, layout="released").double()
    with torch.no_grad():
        model.router.weight.copy_(torch.from_numpy(theirs["gate.weight"]))
        model.router.bias.copy_(torch.from_numpy(theirs["gate.bias"]))
    tuned = {id(p) for p in model.tuned}
    others = [p for p in model.trainable().values() if id(p) not in tuned]
    optimiser = torch.optim.SGD([{"params": model.tuned, "lr": 0.01}, {"params": others}], lr=0.1, momentum=0.9,
                                weight_decay=5e-4)  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    size = 5 if part == "base" else 6
    images = torch.randn(8, size, 3, 32, 32, generator=generator).double()
    labels = torch.randint(0, len(own), (8, size), generator=generator)
    losses = []
    for batch, wanted in zip(images, labels, strict=True):
        parts = model.losses(batch, wanted)
        loss = parts["cls"] + 5 * parts["text"] + parts["gate"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    np.testing.assert_allclose(losses, theirs["losses"], rtol=1e-12)
    model.eval()
    with torch.no_grad():
        np.testing.assert_allclose(model(images[0]).numpy(), theirs["logits"], rtol=1e-10)
    named = {"correction": "w", "router.weight": "gate.weight", "router.bias": "gate.bias"}
    for g in range(len(groups)):
        named |= {f"prompts.before.{g}": f"ctx_before_{g}", f"prompts.after.{g}": f"ctx_after_{g}"}
    for name, other in named.items():
        learned = model.get_parameter(name).detach().numpy()
        np.testing.assert_allclose(learned, theirs[f"after/{other}"], rtol=1e-9, atol=1e-12)
