"""MixtureCLIP beyond the golden numbers: options, gradients' paths, the text cache, what is trained, bad input."""

import copy

import pytest
import torch
from torch.nn import functional as F

from trainers.core.clip.backbones.openai import CLIP
from trainers.core.clip.doors import LowRank, VisualPrompts
from trainers.core.clip.losses import gate_target, soft_cross_entropy, text_to_text_loss, with_noise
from trainers.core.clip.mixture import mixed_logits, mixture_weights
from trainers.core.clip.visual_tower import encode_pictures
from trainers.mocoop.trainer import MixtureCLIP

GROUPS = [
    ["a photo of a {}."],
    ["{} texture."],
    ["a low resolution photo of the {}, blurred.", "a pixelated photo of a {}."],
]
NAMES = ["cat", "air_plane", "golden retriever"]


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 3, 32, 32, generator=generator), torch.tensor([0, 1, 2, 1, 0])


def perturbed(model, scale=0.05):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.trainable().values():
            p.add_(scale * torch.randn(p.shape, generator=generator))
    return model


def test_parameters_have_their_documented_names_and_nothing_else_is_trained(tiny_clip):
    model = MixtureCLIP(tiny_clip, NAMES, GROUPS)
    names = set(model.trainable())
    prompts = {f"prompts.{side}.{g}" for side in ("before", "after") for g in range(3)}
    norms = {n for n in names if n.startswith("image_encoder.transformer.resblocks.")}
    assert names == prompts | {"correction", "router.weight", "router.bias"} | norms
    assert len(norms) == 8
    assert all(n.split(".")[-2] in ("ln_1", "ln_2") for n in norms)
    assert [len(p) for p in model.prompts.before] == [4, 0, 6]
    assert [len(p) for p in model.prompts.after] == [0, 1, 2]
    lean = MixtureCLIP(tiny_clip, NAMES, GROUPS, correction=False, train_visual_ln=False)
    assert set(lean.trainable()) == prompts | {"router.weight", "router.bias"}


def test_the_frozen_clip_does_not_move(tiny_clip, batch):
    model = perturbed(MixtureCLIP(tiny_clip, NAMES, GROUPS))
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    optimiser = torch.optim.SGD(model.trainable().values(), lr=0.1)
    parts = model.losses(*batch)
    (parts["cls"] + parts["text"] + parts["gate"]).backward()
    optimiser.step()
    assert all(torch.equal(p, frozen[n]) for n, p in model.named_parameters() if n in frozen)
    assert all(p.grad is not None for p in model.trainable().values() if p.numel())


def test_logits_are_the_mixture_of_features(tiny_clip, batch):
    """Mixing logits is mixing text features without normalising them again (MoCoOp eq. 4)."""
    model = perturbed(MixtureCLIP(tiny_clip, NAMES, GROUPS))
    image_BD, text_GAD = model.image_features(batch[0]), model.text_features()
    _, weights_BG = model.route(image_BD)
    mixture_BCD = torch.einsum("bg,gcd->bcd", weights_BG, text_GAD)
    expected = model.logit_scale.exp() * torch.einsum("bd,bcd->bc", image_BD, mixture_BCD)
    torch.testing.assert_close(model.losses(*batch)["logits_BC"], expected)


@pytest.mark.parametrize("top_k", [1, 2, 3, 7])
def test_router_chooses_the_largest(top_k):
    router_BG = torch.tensor([[0.1, 2.0, -1.0], [0.0, -3.0, 1.0]])
    k = min(top_k, 3)
    weights_BG = mixture_weights(router_BG, k)
    assert ((weights_BG > 0).sum(1) == k).all()
    torch.testing.assert_close(weights_BG.sum(1), torch.ones(2))
    for row, weights in zip(router_BG, weights_BG, strict=True):
        chosen = weights > 0
        assert row[chosen].min() >= row[~chosen].max() if k < 3 else True
        torch.testing.assert_close(weights[chosen], row[chosen].softmax(0))


def test_top_k_is_clipped_to_the_number_of_groups(tiny_clip):
    assert MixtureCLIP(tiny_clip, NAMES, GROUPS, top_k=9).top_k == 3


def test_uniform_router_averages(tiny_clip, batch):
    model = perturbed(MixtureCLIP(tiny_clip, NAMES, GROUPS, router="uniform"))
    image_BD = model.image_features(batch[0])
    expected = model.logit_scale.exp() * torch.einsum("bd,gcd->gbc", image_BD, model.text_features()).mean(0)
    torch.testing.assert_close(model.losses(*batch)["logits_BC"], expected)


def test_gate_target_by_hand():
    similarity = torch.tensor([[0.3, 0.1, 0.2]])
    raised = torch.tensor([[10.3, 0.1, 10.2]])
    torch.testing.assert_close(gate_target(similarity, 2, 10.0), raised.softmax(1))
    assert similarity.tolist() == torch.tensor([[0.3, 0.1, 0.2]]).tolist()  # the input is left alone


def test_soft_cross_entropy_by_hand():
    logits, target = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.25, 0.75]])
    expected = -(0.25 * (1 - torch.logsumexp(logits, 1)) + 0.75 * (2 - torch.logsumexp(logits, 1)))
    torch.testing.assert_close(soft_cross_entropy(logits, target), expected[0])


def test_text_loss_by_hand():
    soft = torch.nn.functional.normalize(torch.randn(2, 3, 8), dim=-1)
    hard = torch.nn.functional.normalize(torch.randn(2, 3, 8), dim=-1)
    each = [-(3.0 * soft[g, c] @ hard[g].T).log_softmax(0)[c] for g in range(2) for c in range(3)]
    torch.testing.assert_close(text_to_text_loss(soft, hard, 3.0), torch.stack(each).mean())


def test_noise_is_fresh_and_never_kept():
    features = torch.ones(4, 5)
    torch.manual_seed(0)
    draws = [with_noise(features, 0.05) for _ in range(200)]
    noisy = [d for d in draws if d is not features]
    assert 60 < len(noisy) < 140
    assert torch.equal(features, torch.ones(4, 5))
    assert abs(float(torch.stack(noisy).std()) - 0.05) < 0.005
    assert with_noise(features, 0.0) is features


def test_gate_gradient_reaches_the_layer_norms_unless_detached(tiny_clip, batch):
    grads = {}
    for detach in (False, True):
        model = MixtureCLIP(tiny_clip, NAMES, GROUPS, gate_detach=detach)
        with torch.no_grad():
            model.router.weight.zero_()  # so that the only way to the image encoder is the target
        (model.losses(*batch)["gate"]).backward()
        grads[detach] = float(sum(p.grad.abs().sum() for p in model.tuned if p.grad is not None))
        for p in model.tuned:
            p.grad = None
    assert grads[True] == 0.0
    # with equal router logits the cross-entropy does not depend on the target, so give the router a bias
    model = MixtureCLIP(tiny_clip, NAMES, GROUPS)
    with torch.no_grad():
        model.router.weight.zero_()
        model.router.bias.copy_(torch.tensor([1.0, 0.0, -1.0]))
    model.losses(*batch)["gate"].backward()
    assert float(sum(p.grad.abs().sum() for p in model.tuned)) > 0


def test_class_mean_gate_needs_no_label(tiny_clip, batch):
    images, labels = batch
    model = MixtureCLIP(tiny_clip, NAMES, GROUPS, gate_target="class_mean")
    shuffled = labels.roll(1)
    assert torch.equal(model.losses(images, labels)["gate"], model.losses(images, shuffled)["gate"])
    by_label = MixtureCLIP(tiny_clip, NAMES, GROUPS)
    image_BD = by_label.image_features(images)
    assert not torch.equal(by_label.gate_similarity(image_BD, labels), by_label.gate_similarity(image_BD, shuffled))


def test_text_loss_scale(tiny_clip, batch):
    own = {s: MixtureCLIP(tiny_clip, NAMES, GROUPS, text_logit_scale=s).losses(*batch)["text"] for s in (1.0, "clip")}
    model = MixtureCLIP(tiny_clip, NAMES, GROUPS)
    expected = text_to_text_loss(model.text_features(), model.prototypes_GAD, tiny_clip.logit_scale.exp())
    torch.testing.assert_close(own["clip"], expected)
    assert own["clip"] < own[1.0]


def test_text_classes_beyond_the_training_classes(tiny_clip, batch):
    """Names of other classes enter the text loss, not the logits."""
    model = MixtureCLIP(tiny_clip, NAMES, GROUPS, text_classnames=[*NAMES, "ox", "zebra"])
    parts = model.losses(*batch)
    assert parts["logits_BC"].shape == (5, 3)
    assert model.text_features().shape[:2] == (3, 5)
    with pytest.raises(ValueError, match="must begin with classnames"):
        MixtureCLIP(tiny_clip, NAMES, GROUPS, text_classnames=["ox", *NAMES])


class TestCache:
    """In evaluation the text is encoded once; what changes weights drops it, or says so with weights_changed()."""

    @pytest.fixture
    def model(self, tiny_clip):
        model = perturbed(MixtureCLIP(tiny_clip, NAMES, GROUPS, top_k=3)).eval()
        self.calls = 0
        encode = model.text_encoder.forward

        def counted(*args):
            self.calls += 1
            return encode(*args)

        model.text_encoder.forward = counted
        return model

    @pytest.fixture
    def images(self, batch):
        return batch[0]

    @torch.no_grad()
    def fresh(self, model, images):
        model.weights_changed()
        return model(images)

    @torch.no_grad()
    def test_encoded_once(self, model, images):
        first = model(images)
        assert all(torch.equal(model(images), first) for _ in range(3))
        assert self.calls == 1

    @pytest.mark.parametrize(
        "change",
        [
            lambda m: m.prompts.before[0].mul_(2.0),
            lambda m: m.prompts.before[0].data.mul_(2.0),
            lambda m: m.correction.data.mul_(3.0),
            lambda m: setattr(m.prompts.after[1], "data", m.prompts.after[1].data + 1.0),
            lambda m: m.text_encoder.model.transformer.resblocks[0].mlp.c_fc.weight.mul_(1.5),
            lambda m: m.text_encoder.model.ln_final.bias.add_(0.5),
        ],
        ids=["in place", "data", "correction", "new data", "tower", "final norm"],
    )
    @torch.no_grad()
    def test_a_change_of_weights_that_is_told_is_seen(self, model, images, change):
        before = model(images)
        change(model)
        model.weights_changed()
        after = model(images)
        assert not torch.equal(after, before)
        assert torch.equal(after, self.fresh(model, images))

    @torch.no_grad()
    def test_loading_weights_is_seen(self, model, images):
        before = model(images)
        model.load_state_dict({k: v * 1.1 for k, v in model.state_dict().items() if "before" in k}, strict=False)
        after = model(images)
        assert not torch.equal(after, before)
        assert torch.equal(after, self.fresh(model, images))

    def test_nothing_is_kept_where_gradients_are_wanted(self, model, images):
        model(images).sum().backward()
        assert model.prompts.before[0].grad.abs().sum() > 0
        with torch.no_grad():
            model(images)
        model(images).sum().backward()
        assert self.calls == 3

    @torch.no_grad()
    def test_an_optimiser_step_is_seen(self, model, images):
        before = model(images)
        with torch.enable_grad():
            model.train()
            optimiser = torch.optim.SGD(model.trainable().values(), lr=1.0)
            model.losses(images, torch.tensor([0, 1, 2, 1, 0]))["cls"].backward()
            optimiser.step()
            model.eval()
        after = model(images)
        assert not torch.equal(after, before)
        assert torch.equal(after, self.fresh(model, images))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"template_groups": []}, "template groups must be a list"),
        ({"template_groups": ["a {}."]}, "template groups must be a list"),
        ({"template_groups": [["a photo."]]}, "needs exactly one {}"),
        ({"gate_target": "labels"}, "use label or class_mean"),
        ({"router": "random"}, "use learned or uniform"),
        ({"text_logit_scale": "none"}, "use a number, clip or None"),
        ({"top_k": 0}, "TOP_K is 0: use a whole number at least 1"),
    ],
)
def test_options_that_make_no_sense(tiny_clip, options, message):
    with pytest.raises(ValueError, match=message):
        MixtureCLIP(tiny_clip, NAMES, **({"template_groups": GROUPS} | options))


class TestWhatExpertsHaveBesides:
    """Tokens or a change of low rank in the picture tower, and contexts that each picture shifts."""

    def model(self, clip_model, **options):
        torch.manual_seed(3)
        model = MixtureCLIP(clip_model, NAMES, GROUPS, **options)
        return perturbed(model).eval()

    def by_hand(self, model, images, feature_of, text_of):
        """Each picture's logits, one expert after the other."""
        expected = []
        with torch.no_grad():
            for picture in images:
                plain_1D = model.image_features(picture[None])
                weights_G = model.route(plain_1D)[1][0]
                similarity = [
                    weight * feature_of(g, picture[None]) @ text_of(g, plain_1D).T
                    for g, weight in enumerate(weights_G)
                    if weight > 0
                ]
                assert len(similarity) == 2
                expected.append(model.logit_scale.exp() * sum(similarity)[0])
        return torch.stack(expected)

    def test_tokens(self, tiny_clip, batch):
        model = self.model(tiny_clip, visual_tokens=[2, 0])
        assert {n: tuple(p.shape) for n, p in model.trainable().items() if "expert" in n} == {
            "expert_rows.0": (3, 2, model.backbone.visual_width)
        }

        def feature_of(g, image):
            prompts = VisualPrompts({0: model.expert_rows["0"][g]})
            return F.normalize(encode_pictures(model.backbone, image, prompts=prompts), dim=-1)

        images, _ = batch
        expected = self.by_hand(model, images, feature_of, lambda g, _: model.tested_features()[g])
        torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)

    def test_a_change_of_low_rank(self, tiny_clip, batch):
        fresh = MixtureCLIP(tiny_clip, NAMES, GROUPS, visual_rank=2).eval()
        images, _ = batch
        plain = fresh.image_features(images)
        unchanged = fresh.encoded(images, LowRank({block: fresh.expert_rows[str(block)][:1].expand(5, -1, -1)
                                                   for block in range(2)}))  # fmt: skip
        torch.testing.assert_close(F.normalize(unchanged, dim=-1), plain, rtol=1e-5, atol=1e-5)  # B starts as zero
        model = self.model(tiny_clip, visual_rank=2)

        def feature_of(g, image):
            changed = copy.deepcopy(model)
            W = model.backbone.visual_width
            for block, layer in enumerate(changed.image_encoder.transformer.resblocks):
                a_RW, b_RX = model.expert_rows[str(block)][g].split([W, 3 * W], dim=-1)
                layer.attn.in_proj_weight.add_(b_RX.T @ a_RW)
            return changed.image_features(image)

        expected = self.by_hand(model, images, feature_of, lambda g, _: model.tested_features()[g])
        torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("blend", [0.0, 0.5])
    def test_contexts_that_each_picture_shifts(self, tiny_clip, batch, blend):
        model = self.model(tiny_clip, conditional=True, blend=blend)

        def text_of(g, plain_1D):
            shifted = copy.deepcopy(model)
            for vectors in (*shifted.prompts.before, *shifted.prompts.after):
                vectors.add_(model.meta_net(plain_1D))
            return shifted.tested_features()[g]

        images, _ = batch
        expected = self.by_hand(model, images, lambda g, image: model.image_features(image), text_of)
        torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)
        with pytest.raises(ValueError, match="a mixture with CONDITIONAL True cannot be exported"):
            model.exportable()

    @pytest.mark.parametrize(
        "options",
        [
            {"visual_tokens": [1, 2]},
            {"visual_rank": 1},
            {"conditional": True},
            {"visual_rank": 1, "conditional": True, "router": "uniform"},
        ],
    )
    def test_everything_learns(self, tiny_clip, batch, options):
        model = perturbed(MixtureCLIP(tiny_clip, NAMES, GROUPS, top_k=3, **options))
        parts = model.losses(*batch)
        (parts["cls"] + parts["text"] + parts["gate"]).backward()
        assert all(p.grad.abs().sum() > 0 for p in model.trainable().values() if p.numel())
        assert parts["logits_BC"].shape == (5, 3)

    def test_towers_that_are_too_shallow(self, tiny_clip):
        with pytest.raises(ValueError, match="VISUAL_TOKENS is 3, but this tower has 2 blocks"):
            MixtureCLIP(tiny_clip, NAMES, GROUPS, visual_tokens=[1, 1, 1])


def test_resnet_backbone(batch):
    """A ResNet has no visual LayerNorms, and its batch statistics stay where they are."""
    torch.manual_seed(0)
    resnet = CLIP(64, 32, (1, 1, 1, 1), 8, None, 77, 49408, 64, 1, 1).float()
    model = MixtureCLIP(resnet, NAMES, GROUPS)
    assert not any(n.startswith("image_encoder") for n in model.trainable())
    statistics = {n: b.clone() for n, b in model.named_buffers() if "running" in n}
    parts = model.losses(*batch)
    (parts["cls"] + parts["text"] + parts["gate"]).backward()
    assert all(torch.equal(b, statistics[n]) for n, b in model.named_buffers() if n in statistics)
    with torch.no_grad():
        assert model.eval()(batch[0]).shape == (5, 3)


def test_mixed_logits_never_build_a_feature_mixture():
    image, text, weights = torch.randn(4, 8), torch.randn(3, 5, 8), torch.rand(4, 3)
    expected = 2.0 * torch.einsum("bd,bcd->bc", image, torch.einsum("bg,gcd->bcd", weights, text))
    torch.testing.assert_close(mixed_logits(image, text, weights, torch.tensor(2.0)), expected)


def test_features_in_half_precision_mix_with_a_router_in_single():
    """As with fp16 and amp: CLIP's features are half, the router is single precision."""
    image_BD, text_GCD = torch.randn(3, 8).bfloat16(), torch.randn(4, 5, 8).bfloat16()
    weights_BG = mixture_weights(torch.randn(3, 4), 2)
    assert mixture_weights(torch.randn(3, 4).bfloat16(), 2).dtype == torch.bfloat16
    logits_BC = mixed_logits(image_BD, text_GCD, weights_BG, torch.tensor(100.0).bfloat16())
    exact_BC = mixed_logits(image_BD.float(), text_GCD.float(), weights_BG, torch.tensor(100.0))
    assert torch.equal(logits_BC, exact_BC)  # rounded logits would tie
