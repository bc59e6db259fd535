"""The fast text encoder against the plain one, and the plain one against CLIP's own encode_text."""

import clip
import pytest
import torch
from conftest import EOT, SOS, VOCABULARY, encode, golden_in_double, in_double
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize

from trainers.core.clip.backbones.openai import ResidualAttentionBlock
from trainers.core.clip.prompts import PromptPlan, SoftPrompts, clean_classname, hard_plan, slot
from trainers.core.clip.text_tower import TextEncoder

TEMPLATES = ["a photo of a {}.", "{} texture.", "itap of the {}, a type of flower.", "a {}", "{}"]
NAMES = ["cat", "air_plane", "golden retriever", "2012 Tesla Model S", "ox"]


def features_and_gradients(model, templates, names, mode, chunk=0):
    prompts = SoftPrompts(templates, names, model.token_embedding, VOCABULARY)
    prompts.to(model.positional_embedding.dtype)
    with torch.no_grad():
        for p in prompts.parameters():
            p.add_(torch.linspace(-0.02, 0.03, p.numel(), dtype=p.dtype).view(p.shape))
    features = TextEncoder(model, mode, chunk)(prompts.plan, prompts.vectors())
    unit = nn.functional.normalize(features, dim=-1)
    weights = torch.sin(torch.arange(unit.numel(), dtype=unit.dtype)).view(unit.shape)
    used = [p for p in prompts.parameters() if p.numel()]
    (unit * weights).sum().backward()
    return unit.detach(), [p.grad for p in used]


@pytest.mark.parametrize("mode", ["plain", "fast"])
@pytest.mark.parametrize("chunk", [0, 1, 3, 5, 12])
def test_hard_prompts_are_what_clip_encodes(tiny_clip, mode, chunk):
    expected = torch.stack(
        [tiny_clip.encode_text(clip.tokenize([t.format(clean_classname(n)) for n in NAMES])) for t in TEMPLATES]
    )
    with torch.no_grad():
        got = TextEncoder(tiny_clip, mode, chunk)(hard_plan(TEMPLATES, NAMES, VOCABULARY))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("chunk", [0, 1, 4, 5, 10])
def test_fast_equals_plain_in_double_precision(tiny_clip, chunk):
    model = in_double(tiny_clip)
    plain, plain_grads = features_and_gradients(model, TEMPLATES, NAMES, "plain")
    fast, fast_grads = features_and_gradients(model, TEMPLATES, NAMES, "fast", chunk)
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-12)
    for a, b in zip(fast_grads, plain_grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10 * float(b.abs().max()))


def test_fast_equals_plain_in_single_precision(tiny_clip):
    plain, plain_grads = features_and_gradients(tiny_clip, TEMPLATES, NAMES, "plain")
    fast, fast_grads = features_and_gradients(tiny_clip, TEMPLATES, NAMES, "fast")
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-5)
    for a, b in zip(fast_grads, plain_grads, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5 * float(b.abs().max()))


def test_bfloat16_follows_single_precision(tiny_clip):
    plan = hard_plan(TEMPLATES, NAMES, VOCABULARY)
    with torch.no_grad():
        expected = TextEncoder(tiny_clip)(plan)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = TextEncoder(tiny_clip)(plan).float()
    assert nn.functional.cosine_similarity(got, expected, dim=-1).min() > 0.999


lengths = st.integers(0, 4)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    groups=st.lists(st.tuples(lengths, lengths), min_size=1, max_size=3),
    names=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    chunk=st.integers(0, 8),
)
def test_any_layout_of_learned_and_fixed_tokens(tiny_clip_double, groups, names, chunk):
    """Random numbers of learned tokens before and after, class counts and name lengths."""
    model = tiny_clip_double
    sos, eot, word = encode(SOS), encode(EOT), encode("cat")
    prefixes, tails, k = [], [], 0
    for before, after in groups:
        prefixes.append(sos + [slot(k + i) for i in range(before)])
        k += before
        own = [slot(k + i) for i in range(after)]
        k += after
        tails.append([word * n + own + eot for n in names])
    vectors = torch.randn(k, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(k)).requires_grad_()
    plan = PromptPlan(prefixes, tails)
    plain = TextEncoder(model, "plain")(plan, vectors)
    fast = TextEncoder(model, "fast", chunk)(plan, vectors)
    torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-11)
    if k:
        fast.square().sum().backward()
        a, vectors.grad = vectors.grad, None
        plain.square().sum().backward()
        b = vectors.grad
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9 * max(1.0, float(b.abs().max())))


@pytest.fixture(scope="module")
def tiny_clip_double():
    return golden_in_double().requires_grad_(False)


def test_longest_prompt_fits_and_a_longer_one_is_refused(tiny_clip):
    sos, eot, word = encode(SOS), encode(EOT), encode("cat")
    plan = PromptPlan([sos], [[word * 75 + eot]])
    with torch.no_grad():
        torch.testing.assert_close(
            TextEncoder(tiny_clip)(plan), TextEncoder(tiny_clip, "plain")(plan), rtol=0, atol=1e-5
        )
    with pytest.raises(ValueError, match="78 tokens, but CLIP reads at most 77"):
        PromptPlan([sos], [[word * 76 + eot]])


def test_memory_budget_cuts_the_work_and_is_kept(tiny_clip):
    prompts = SoftPrompts(TEMPLATES, NAMES, tiny_clip.token_embedding, VOCABULARY)
    encoder = TextEncoder(tiny_clip, memory_budget=10**6)
    encoder(prompts.plan, prompts.vectors())
    first = encoder.training_chunk
    assert 1 <= first < len(TEMPLATES) * len(NAMES)
    encoder.memory_budget = 10**12
    encoder(prompts.plan, prompts.vectors())
    assert encoder.training_chunk == first
    with torch.no_grad():
        encoder(prompts.plan, prompts.vectors())
    assert encoder._chunk(prompts.plan, True) == first


class Gated(ResidualAttentionBlock):
    def forward(self, x):
        return x + 0.5 * super().forward(x)


def hook_attention(block):
    block.attn.register_forward_hook(lambda m, i, out: (out[0] * 0.5, out[1]))


def hook_block(block):
    block.register_forward_hook(lambda m, i, out: out * 0.5)


def replace_class(block):
    block.__class__ = Gated


def replace_forward(block):
    block.attention = lambda x: 0.5 * x


@pytest.mark.parametrize("patch", [hook_attention, hook_block, replace_class, replace_forward])
def test_a_patched_tower_is_computed_as_it_is(tiny_clip, patch):
    """What adapters do to a block must be obeyed: the fast path stands aside where it would go round it."""
    plan = hard_plan(TEMPLATES, NAMES, VOCABULARY)
    with torch.no_grad():
        before = TextEncoder(tiny_clip)(plan)
        patch(tiny_clip.transformer.resblocks[0])
        patched, expected = TextEncoder(tiny_clip)(plan), TextEncoder(tiny_clip, "plain")(plan)
    assert torch.equal(patched, expected)
    assert not torch.allclose(patched, before, atol=1e-3)


def test_a_replaced_linear_layer_is_used_as_it_stands(tiny_clip):
    """The fast path calls it, as LoRA wants."""
    plan = hard_plan(TEMPLATES, NAMES, VOCABULARY)
    mlp = tiny_clip.transformer.resblocks[0].mlp
    with torch.no_grad():
        before = TextEncoder(tiny_clip)(plan)
        mlp.c_proj = nn.Sequential(mlp.c_proj, nn.Tanh())
        patched, expected = TextEncoder(tiny_clip)(plan), TextEncoder(tiny_clip, "plain")(plan)
    torch.testing.assert_close(patched, expected, rtol=0, atol=1e-5)
    assert not torch.allclose(patched, before, atol=1e-3)


def test_testing_is_not_cut_as_training_was(tiny_clip):
    """CoCoOp trains on one picture and tests on many: each number of prompts has its own chunk."""
    small, large = hard_plan(TEMPLATES[:1], NAMES, VOCABULARY), hard_plan(TEMPLATES, NAMES, VOCABULARY)
    encoder = TextEncoder(tiny_clip)
    encoder(small)
    with torch.no_grad():
        assert encoder._chunk(large, True) == len(TEMPLATES) * len(NAMES)
    assert encoder.training_chunk == len(NAMES)


def test_unknown_mode():
    with pytest.raises(ValueError, match='use "fast" or "plain"'):
        TextEncoder(nn.Module(), "quick")


@pytest.mark.parametrize("soft", [True, False])
def test_a_trained_tower_gets_its_gradient_in_chunks_too(tiny_clip, soft):
    model = in_double(tiny_clip)
    norm = model.ln_final.weight.requires_grad_(True)
    prompts = SoftPrompts(TEMPLATES, NAMES, model.token_embedding, VOCABULARY).double()
    plan, vectors = (prompts.plan, prompts.vectors()) if soft else (hard_plan(TEMPLATES, NAMES, VOCABULARY), None)
    gradients = []
    for chunk in (len(TEMPLATES) * len(NAMES), 3):
        norm.grad = None
        TextEncoder(model, chunk=chunk)(plan, vectors).square().sum().backward(retain_graph=True)
        gradients.append(norm.grad)
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


class TestDeepPrompts:
    """What replaces the positions behind SOS before some blocks, by the fast path and by the plain one."""

    @pytest.mark.parametrize("chunk", [0, 1, 2])
    @pytest.mark.parametrize("blocks", [[0], [1], [0, 1]])
    @pytest.mark.parametrize("classwise", [False, True])
    def test_fast_equals_plain(self, tiny_clip_double, blocks, classwise, chunk):
        model, G = tiny_clip_double, 1 if classwise else 2
        sos, eot = encode(SOS), encode(EOT)
        tails = [encode(name) + eot for name in ("cat", "golden retriever", "ox")]
        plan = PromptPlan([[*sos, *(slot(4 * g + i) for i in range(4))] for g in range(G)], [tails] * G)
        generator = torch.Generator().manual_seed(1)
        shape = (3, 2, 64) if classwise else (2, 64)

        def drawn(*shape):
            return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()

        vectors, deep = drawn(4 * G, 64), {block: drawn(*shape) for block in blocks}
        found = []
        for mode in ("plain", "fast"):
            features = TextEncoder(model, mode, chunk if mode == "fast" else 0)(plan, vectors, deep)
            assert features.shape == (G, 3, 64)
            weights = torch.sin(torch.arange(features.numel(), dtype=torch.float64)).view(features.shape)
            (features * weights).sum().backward()
            found.append((features.detach(), *(tensor.grad for tensor in (vectors, *deep.values()))))
            vectors.grad = None
            for tensor in deep.values():
                tensor.grad = None
        for plain, fast in zip(*found, strict=True):
            torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-11 * float(plain.abs().max()))

    def test_the_plain_path_is_a_loop_over_clips_own_blocks(self, tiny_clip_double):
        model, rows = tiny_clip_double, torch.randn(2, 64, dtype=torch.float64)
        plan = PromptPlan([[*encode(SOS), *encode("a photo of a")]], [[encode("cat") + encode(EOT)]])
        tokens = torch.tensor([plan.prefixes[0] + plan.tails[0][0]])
        x = (model.token_embedding(tokens) + model.positional_embedding[: tokens.shape[1]]).permute(1, 0, 2)
        with torch.no_grad():
            for number, block in enumerate(model.transformer.resblocks):
                if number == 1:
                    x = torch.cat([x[:1], rows[:, None], x[3:]])
                block.attn_mask, mask = block.attn_mask[: len(x), : len(x)], block.attn_mask
                x = block(x)
                block.attn_mask = mask
            expected = model.ln_final(x[-1]) @ model.text_projection
            torch.testing.assert_close(TextEncoder(model)(plan, deep={1: rows})[0], expected, rtol=1e-10, atol=1e-12)

    def test_what_does_not_fit(self, tiny_clip):
        encoder = TextEncoder(tiny_clip)
        plan = hard_plan(["a {}."], NAMES, VOCABULARY)
        for deep, said in (({1: torch.zeros(3, 64)}, "have 3 tokens, but 1 stand between SOS and the class names"),
                           ({2: torch.zeros(1, 64)}, "text prompts for block 2: this tower has blocks 0 to 1"),
                           ({1: torch.zeros(2, 1, 64)}, "one for each class")):  # fmt: skip
            with pytest.raises(ValueError, match=said):
                encoder(plan, deep=deep)


def test_weights_that_parametrize_makes_stay_on_the_fast_path(tiny_clip):
    """LoRA by torch's own means: exact there, and so not computed the long way in silence."""

    class Lower(nn.Module):
        def __init__(self, shape):
            super().__init__()
            self.a, self.b = nn.Parameter(torch.randn(shape[0], 2) / 9), nn.Parameter(torch.randn(2, shape[1]) / 9)

        def forward(self, weight):
            return weight + self.a @ self.b

    plan = hard_plan(TEMPLATES, NAMES, VOCABULARY)
    before = TextEncoder(tiny_clip)(plan)
    for block in tiny_clip.transformer.resblocks:
        parametrize.register_parametrization(block.attn, "in_proj_weight", Lower(block.attn.in_proj_weight.shape))
    encoder = TextEncoder(tiny_clip)
    assert encoder.path == "fast"
    after = encoder(plan)
    torch.testing.assert_close(after, TextEncoder(tiny_clip, "plain")(plan), rtol=0, atol=1e-5)
    assert (after - before).abs().max() > 1e-3
