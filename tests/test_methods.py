"""CoOp, CoCoOp, LASP and zero-shot CLIP against direct computations, checkpoints that their own projects write, and which
recipe a method takes where."""

import json

import clip
import numpy as np
import pytest
import torch
from conftest import run_train
from test_runs import arguments, fails
from torch.nn import functional as F

from harness.catalog import config_for, datasets_in_order, method_named, recipes_of
from harness.plan import PROTOCOLS
from trainers.cocoop.trainer import CoCoOpCLIP
from trainers.coop.trainer import CoOpCLIP
from trainers.core.clip.losses import text_to_text_loss
from trainers.core.settings.configure import configure
from trainers.core.training.evaluation import accuracies_of_halves
from trainers.lasp.trainer import LaspCLIP
from trainers.linear_probe.trainer import CLIPS_STRENGTH, best_strength, held_out_quarter
from trainers.methods import methods
from trainers.prograd.trainer import ProGrad
from trainers.zsclip.trainer import HardMixtureCLIP, HardPromptCLIP

NAMES = ["cat", "air_plane", "golden retriever"]


@pytest.fixture
def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def encode_embeddings(model, prompts, eots):
    """CLIP's text tower on embeddings, all 77 positions, one prompt at a time."""
    features = []
    for prompt, eot in zip(prompts, eots, strict=True):
        x = (prompt + model.positional_embedding)[:, None]
        x = model.ln_final(model.transformer(x)[:, 0])
        features.append(x[eot] @ model.text_projection)
    return F.normalize(torch.stack(features), dim=-1)


@pytest.mark.parametrize("csc", [False, True])
@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_coop_positions(tiny_clip, images, position, csc):
    """Placeholders "X" in the tokenised sentence are replaced by the context, as the paper draws it."""
    torch.manual_seed(0)
    model = CoOpCLIP(tiny_clip, NAMES, n_ctx=4, csc=csc, class_token_position=position)
    words = {"end": "X X X X {}.", "middle": "X X {} X X.", "front": "{} X X X X."}[position]
    ids = clip.tokenize([words.format(name.replace("_", " ")) for name in NAMES])
    prompts = tiny_clip.token_embedding(ids).clone()
    placeholder = int(clip.tokenize("X")[0, 1])
    for c in range(len(NAMES)):
        prompts[c, ids[c] == placeholder] = model.ctx[c] if csc else model.ctx
    expected = encode_embeddings(tiny_clip, prompts, ids.argmax(-1))
    torch.testing.assert_close(model.text_features(), expected, rtol=0, atol=1e-5)
    logits = tiny_clip.logit_scale.exp() * F.normalize(tiny_clip.visual(images), dim=-1) @ expected.T
    torch.testing.assert_close(model(images), logits, rtol=1e-4, atol=1e-3)


def test_coop_from_words_is_zero_shot_clip(tiny_clip, images):
    coop = CoOpCLIP(tiny_clip, NAMES, ctx_init="a photo of a").eval()
    zero_shot = HardPromptCLIP(tiny_clip, NAMES, ["a photo of a {}."]).eval()
    torch.testing.assert_close(coop(images), zero_shot(images), rtol=1e-4, atol=1e-3)
    with pytest.raises(ValueError, match="use end, middle or front"):
        CoOpCLIP(tiny_clip, NAMES, class_token_position="back")


@pytest.mark.parametrize("read", ["joint", "mean"])
def test_hard_mixture_reads_its_groups(tiny_clip, images, read):
    groups = [["a photo of a {}.", "a good photo of a {}."], ["a sketch of a {}."]]
    model = HardMixtureCLIP(tiny_clip, NAMES, groups, read).eval()
    single = [HardPromptCLIP(tiny_clip, NAMES, group).eval()(images) for group in groups]
    probabilities_BN = torch.cat(single, dim=-1).softmax(-1)  # one softmax over both groups' classes
    logits, weights = model.predict(images)
    torch.testing.assert_close(weights.sum(-1), torch.ones(len(images)))
    if read == "joint":
        own, other = probabilities_BN.split(len(NAMES), dim=-1)
        torch.testing.assert_close(logits.softmax(-1), own + other, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(weights[:, 0], own.sum(-1), rtol=1e-4, atol=1e-6)
    else:
        torch.testing.assert_close(logits, sum(single) / 2, rtol=1e-4, atol=1e-3)
    with pytest.raises(ValueError, match="non-empty lists of templates"):
        HardMixtureCLIP(tiny_clip, NAMES, [[]])


@pytest.mark.parametrize("chunk", [0, 1, 2, 4])
def test_cocoop_batches_are_its_single_pictures(tiny_clip, images, chunk):
    torch.manual_seed(0)
    model = CoCoOpCLIP(tiny_clip, NAMES, ctx_init="a photo of a", text_chunk=chunk)
    together = model(images)
    torch.testing.assert_close(together, torch.cat([model(x[None]) for x in images]), rtol=1e-4, atol=1e-3)
    together.square().sum().backward()
    own, model.ctx.grad = model.ctx.grad, None
    sum(model(x[None]).square().sum() for x in images).backward()
    single = model.ctx.grad
    torch.testing.assert_close(own, single, rtol=1e-3, atol=1e-4 * float(single.abs().max()))


def test_cocoop_shifts_its_context_by_the_picture(tiny_clip, images):
    model = CoCoOpCLIP(tiny_clip, NAMES, ctx_init="a photo of a")
    with torch.no_grad():
        image_BD = model.image_features(images[:1])
        model.ctx += model.meta_net(image_BD)  # CoOp with the shifted context ...
        coop = CoOpCLIP(tiny_clip, NAMES, ctx_init="a photo of a").eval()
        coop.ctx.copy_(model.ctx)
        model.ctx -= model.meta_net(image_BD)
        torch.testing.assert_close(model(images[:1]), coop(images[:1]), rtol=1e-4, atol=1e-3)  # ... for this picture


def test_lasp_losses(tiny_clip, images):
    """Every template chooses among the soft prompts at CLIP's scale, as in LASP's code, or is chosen from, as in its
    abstract; groups against their own templates, logits averaged."""
    templates = ["a photo of a {}.", "{} texture.", "itap of a {}.", "a {}."]
    labels = torch.tensor([0, 1, 2])
    one = LaspCLIP(tiny_clip, NAMES, templates, text_noise=0.0)
    losses = one.losses(images, labels)
    soft, hard = one.text_features(), one.hard_TAD
    logits = tiny_clip.logit_scale.exp() * soft @ hard.transpose(1, 2)
    labels_TC = torch.arange(3).expand(4, -1)  # logits are templates x soft prompts x hard features
    torch.testing.assert_close(losses["text"], F.cross_entropy(logits, labels_TC))
    other = LaspCLIP(tiny_clip, NAMES, templates, text_noise=0.0, text_loss_over="hard").losses(images, labels)["text"]
    torch.testing.assert_close(other, F.cross_entropy(logits.flatten(0, 1), labels_TC.flatten()))
    torch.testing.assert_close(losses["cls"], F.cross_entropy(one(images), labels))
    two = LaspCLIP(tiny_clip, NAMES, templates, n_groups=2, text_noise=0.0)
    scale = tiny_clip.logit_scale.exp()
    halves = [
        text_to_text_loss(two.text_features()[g : g + 1], hard[2 * g : 2 * g + 2], scale, "soft") for g in range(2)
    ]
    torch.testing.assert_close(two.losses(images, labels)["text"], torch.stack(halves).mean())
    assert set(two.trainable()) >= {"prompt_learner.ctx", "prompt_learner.w"}
    with pytest.raises(ValueError, match="use 1 to 4"):
        LaspCLIP(tiny_clip, NAMES, templates, n_groups=5)


@pytest.mark.parametrize("trainer", ["CoOp", "LASP"])
def test_checkpoints_of_the_original_projects(trainer, tiny_clip, tiny_clip_file, mini_root, tmp_path):
    """CoOp stores its prompt learner with the class tokens; LASP the whole model. Both are evaluated here."""
    state = {"ctx": torch.randn(4, 64)} if trainer == "CoOp" else {
        "prompt_learner.ctx": torch.randn(4, 64), "prompt_learner.w": torch.zeros(1, 64),
        **{f"image_encoder.{k}": v for k, v in tiny_clip.visual.state_dict().items()},
        "logit_scale": torch.tensor(4.0),
    }  # fmt: skip
    prefix = "" if trainer == "CoOp" else "prompt_learner."
    state |= {f"{prefix}token_prefix": torch.zeros(7, 1, 64), f"{prefix}token_suffix": torch.zeros(7, 72, 64)}
    folder = tmp_path / "trained" / "prompt_learner"
    folder.mkdir(parents=True)
    weight = torch.nn.Parameter(torch.zeros(2))
    optimiser = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    weight.grad = torch.ones(2)
    optimiser.step()
    # Dassl's warm-up scheduler keeps its successor, and with it the optimiser, in its state
    schedule = {"successor": torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 50), "last_epoch": 50}
    saved = {
        "state_dict": state,
        "epoch": 50,
        "optimizer": optimiser.state_dict(),
        "scheduler": schedule,
        "val_result": None,
    }
    torch.save(saved, folder / "model.pth.tar-50")
    evaluate = ["--model-dir", folder.parent, "--load-epoch", 50, "--eval-only"]
    process = run_train(*arguments(mini_root, tiny_clip_file, tmp_path / "out", trainer, *evaluate))
    assert process.returncode == 0, process.stderr
    assert "(epoch = 50)" in process.stdout


def test_the_linear_probe_holds_out_a_part_of_every_class():
    """Where the test set is all there is beside training; whole classes held out would choose nothing."""
    labels = np.array([0] * 16 + [1] * 2 + [2])
    held_out = held_out_quarter(labels)
    assert [int(held_out[labels == y].sum()) for y in range(3)] == [4, 1, 0]
    features = np.eye(19)
    nothing = features[:0], labels[:0]
    assert best_strength((features, labels), nothing)[0] == CLIPS_STRENGTH


def test_accuracies_of_halves_are_means_over_the_classes_that_have_pictures():
    """Five classes: base are 0, 1, 2. Class 1 has no picture; of class 0 one of four is right, of 2 all, of 3 one half."""
    labels_N = torch.tensor([0, 0, 0, 0, 2, 3, 3, 4])
    predicted_N = torch.tensor([0, 1, 3, 4, 2, 3, 0, 0])
    assert accuracies_of_halves(predicted_N, labels_N, 5) == {"base_accuracy": 62.5, "new_accuracy": 25.0}


@pytest.mark.parametrize("trainer", [m.trainer for m in methods().values() if m.recipes_of == m.trainer])
def test_a_recipe_for_a_protocol_says_which_holds_on_imagenet(trainer):
    """A dataset counts before a protocol, and cross-dataset begins on ImageNet."""
    choices = recipes_of(trainer)["choices"]
    if "imagenet" in choices:
        missing = [protocol for protocol in PROTOCOLS if protocol in choices and f"imagenet/{protocol}" not in choices]
        assert not missing


@pytest.mark.parametrize(
    ("method", "dataset", "protocol", "shots", "recipe"),
    [
        ("mmrl", "imagenet", "xd", 16, "vit_b16_ep1"),
        ("mmrl_plus_plus", "imagenet", "dg", 16, "vit_b16_ep1"),
        ("prograd", "dtd", "main", 16, "vit_b16_l08"),
        ("prograd", "dtd", "main", 1, "vit_b16_ep50"),
        ("prograd", "dtd", "base2new", 16, "vit_b16_ep100"),
        ("prograd", "imagenet", "base2new", 16, "vit_b16_ep100"),
        ("plot_plus_plus", "dtd", "main", 2, "vit_b16_ep200"),
    ],
)
def test_published_recipes(method, dataset, protocol, shots, recipe):
    assert config_for(method_named(method), dataset, protocol, shots) == recipe


@pytest.mark.parametrize("dataset", datasets_in_order())
@pytest.mark.parametrize("protocol", ["main", "base2new"])
def test_a_context_that_starts_as_the_template_holds_it(dataset, protocol):
    """ProGrad's, with each dataset's own recipe."""
    recipe = config_for(method_named("prograd"), dataset, protocol, 16)
    cfg = configure([f"configs/datasets/{dataset}.yaml", f"configs/trainers/ProGrad/{recipe}.yaml"], [])
    (template,) = ProGrad.templates_of(cfg)
    assert len(template.partition(" {}")[0].split(" ")) <= cfg.TRAINER.PROGRAD.N_CTX


def test_prograd_tests_where_the_template_has_more_words_than_its_context(mini_root, tiny_clip_file, tmp_path):
    """As across datasets: a checkpoint brings its own words. Training from too many is refused."""
    longer = ("DATASET.TEMPLATE", "a centered satellite photo of {}.")
    assert run_train(*arguments(mini_root, tiny_clip_file, tmp_path / "trained", "ProGrad")).returncode == 0
    words = arguments(mini_root, tiny_clip_file, tmp_path / "tested", "ProGrad", "--model-dir", tmp_path / "trained")
    tested = run_train(*words, "--eval-only", *longer)
    assert tested.returncode == 0, tested.stderr
    here, there = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("tested", "trained"))
    assert here["correct"] == there["correct"]
    fails(
        run_train(*arguments(mini_root, tiny_clip_file, tmp_path / "out", "ProGrad"), *longer),
        'N_CTX is 4, but "a centered satellite photo of" has 5 words: use that many or more',
    )
