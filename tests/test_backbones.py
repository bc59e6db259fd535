"""Every family of open_clip, on tiny models: what comes out is what the model's own code gives."""

import copy
import json
import math
import os
import re
import signal
import subprocess
import sys

import open_clip
import pytest
import torch
from conftest import ROOT, acting, patience, run_train
from open_clip_models import FAMILIES, build, tokenizer
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F

from trainers.clip_lora.model import LoraCLIP
from trainers.clip_svd.model import SvdCLIP
from trainers.coprompt.model import CoPromptCLIP
from trainers.core.clip.backbones import Backbone, as_backbone, load_backbone, source_of
from trainers.core.clip.backbones.open_clip import HubTextBackbone, OpenClipSource
from trainers.core.clip.doors import VisualPrompts
from trainers.core.clip.hard_features import hard_features
from trainers.core.clip.prompts import SoftPrompts, tokenize_names, tokenize_prompt
from trainers.core.clip.text_tower import TextEncoder
from trainers.core.training import checkpoints
from trainers.dpl.model import DplCLIP
from trainers.ivlp.model import IvlpCLIP
from trainers.mmrl.model import MmrlCLIP
from trainers.mmrl_plus_plus.model import MmrlPlusPlusCLIP
from trainers.mocoop.trainer import MixtureCLIP
from trainers.norm_tuning.model import NormTunedCLIP
from trainers.plot_plus_plus.model import PlotCLIP
from trainers.two_sfs.model import TwoStageCLIP

TEMPLATES = ["a photo of a {}.", "itap of an {}", "a {} texture.", "{}, a type of pet."]
NAMES = ["dog", "red_panda", "O'Neill 747", "tank top"]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """A family's name, its backbone, and open_clip's own tokeniser."""
    name = build(request.param, tmp_path_factory.mktemp("models") / request.param)
    return request.param, load_backbone(name), open_clip.get_tokenizer(source_of(name).architecture)


def own_features(backbone: Backbone, tokenizer, sentences: list[str]) -> torch.Tensor:
    return backbone.model.encode_text(tokenizer(sentences), normalize=False)


def sentences() -> list[str]:
    return [t.format(n.replace("_", " ")) for t in TEMPLATES for n in NAMES]


@torch.no_grad()
def test_sentences_and_pictures_are_encoded_as_the_model_does(family):
    kind, backbone, tokenizer = family
    expected = own_features(backbone, tokenizer, sentences())
    assert torch.allclose(backbone.encode_text(sentences()), expected, atol=1e-5)
    pictures = torch.randn(2, 3, *backbone.preprocessing.size)
    assert torch.equal(backbone.encode_image(pictures), backbone.model.encode_image(pictures, normalize=False))
    assert expected.shape[1] == backbone.features
    assert len(backbone.visual_layer_norms()) == FAMILIES[kind][3]
    assert (backbone.causal_tower() is not None) == FAMILIES[kind][2]


@torch.no_grad()
@pytest.mark.parametrize("mode", ["fast", "plain"])
@pytest.mark.parametrize("chunk", [0, 3])
def test_hard_prompts_and_soft_ones_that_start_from_words(family, mode, chunk):
    _, backbone, tokenizer = family
    expected = F.normalize(own_features(backbone, tokenizer, sentences()), dim=-1).view(len(TEMPLATES), len(NAMES), -1)
    encoder = TextEncoder(backbone, mode, chunk)
    hard = hard_features(encoder, TEMPLATES, NAMES, backbone.vocabulary)
    assert torch.allclose(hard, expected, atol=1e-5)
    soft = SoftPrompts(TEMPLATES, NAMES, backbone.token_embedding, backbone.vocabulary)
    assert torch.allclose(F.normalize(encoder(soft.plan, soft.vectors()), dim=-1), expected, atol=1e-5)


def test_gradients_of_the_fast_path_are_the_plain_ones(family):
    kind, backbone, _ = family
    found = []
    for mode, chunk in (("fast", 0), ("plain", 0), ("fast", 3)):
        soft = SoftPrompts(TEMPLATES[:2], NAMES, backbone.token_embedding, backbone.vocabulary)
        encoder = TextEncoder(backbone, mode, chunk)
        assert encoder.path == ("fast" if mode == "fast" and FAMILIES[kind][2] else "plain")
        features = encoder(soft.plan, soft.vectors())
        (features * torch.linspace(-1, 1, features.numel()).view_as(features)).sum().backward()
        found.append(torch.cat([p.grad for p in soft.parameters()]))
    assert found[0].abs().max() > 0
    for other in found[1:]:
        assert torch.allclose(found[0], other, atol=1e-5 * float(found[0].abs().max()))


def test_the_transform_is_open_clips(family):
    _, backbone, _ = family
    picture = Image.effect_noise((90, 70), 80).convert("RGB")
    cfg = open_clip.transform.PreprocessCfg(**backbone.model.visual.preprocess_cfg)
    theirs = open_clip.transform.image_transform_v2(cfg, is_train=False)
    assert torch.equal(backbone.transform(picture), theirs(picture))


@torch.no_grad()
def test_halved_weights_follow_the_whole_ones(family):
    _, backbone, tokenizer = family
    halved = type(backbone)(copy.deepcopy(backbone.model), tokenizer, backbone.preprocessing)
    halved.halve()
    texts, pictures = sentences()[:4], torch.randn(2, 3, *backbone.preprocessing.size)
    for ours, whole in (
        (halved.encode_text(texts), backbone.encode_text(texts)),
        (halved.encode_image(pictures), backbone.encode_image(pictures)),
    ):
        assert ours.dtype == torch.float16
        assert F.cosine_similarity(ours.float(), whole).min() > 0.999
    exact = backbone.model.state_dict()
    kept = {name: t for name, t in halved.model.state_dict().items() if t.dtype == torch.float32}
    assert kept
    assert all(torch.equal(tensor, exact[name]) for name, tensor in kept.items())
    halved.model.float()
    assert halved.encode_image(pictures).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_frozen_weights_stored_in_half_precision_change_no_number_under_autocast(family, dtype):
    _, backbone, tokenizer = family
    pictures = torch.randn(4, 3, *backbone.preprocessing.size)
    found: list[list[torch.Tensor]] = []
    for stored in (False, True):
        own = type(backbone)(copy.deepcopy(backbone.model), tokenizer, backbone.preprocessing)
        torch.manual_seed(1)  # of the router
        model = MixtureCLIP(own, NAMES, [TEMPLATES[:1], TEMPLATES[1:]], top_k=1, text_noise=0.0, train_visual_ln=True)
        if stored:
            own.store_frozen(dtype)
            halved = [p for p in own.model.parameters() if p.dtype is dtype]
            assert halved
            assert not any(p.requires_grad for p in halved)
        with torch.autocast("cpu", dtype=dtype):
            parts = model.losses(pictures, torch.tensor([0, 1, 2, 3]))
        (parts["cls"] + parts["text"] + parts["gate"]).backward()
        found.append([parts["logits_BC"], *(p.grad for p in model.trainable().values() if p.numel())])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_a_mixture_learns_on_every_family(family):
    kind, backbone, _ = family
    model = MixtureCLIP(backbone, NAMES, [TEMPLATES[:1], TEMPLATES[1:]], top_k=1)
    with torch.no_grad():
        pictures = torch.randn(4, 3, *backbone.preprocessing.size)
    parts = model.losses(pictures, torch.tensor([0, 1, 2, 3]))
    (parts["cls"] + parts["text"] + parts["gate"]).backward()
    without = [name for name, p in model.trainable().items() if p.numel() and (p.grad is None or not p.grad.any())]
    assert not without, f"{kind}: {without}"
    model.backbone.model.requires_grad_(False)


def test_a_class_name_is_cut_out_of_its_sentence(family):
    _, backbone, _ = family
    v = backbone.vocabulary
    for template in TEMPLATES:
        for name in ("dog", "tank top"):
            parts = tokenize_prompt(template, name, v)
            assert parts.before + parts.name + parts.after + parts.stop == v.encode(template.format(name))
    assert [p.name for p in tokenize_names(["dog"], v)] == [tokenize_prompt("a photo of a {}.", "dog", v).name]


def test_too_long_a_sentence_is_refused(family):
    _, backbone, _ = family
    with pytest.raises(ValueError, match="at most"):
        backbone.encode_text(["dog " * 80])
    with pytest.raises(ValueError, match="at most"):
        tokenize_prompt("a photo of a {}.", "dog " * 80, backbone.vocabulary)


def test_a_model_of_open_clip_is_refused_by_name(family):
    _, backbone, _ = family
    with pytest.raises(TypeError, match=r"open_clip\..* is no model of OpenAI's clip package"):
        MixtureCLIP(backbone.model, NAMES, [TEMPLATES[:1]])


class TestNames:
    def test_what_a_name_means(self, tmp_path):
        by_tag = source_of("open_clip:ViT-B-16-SigLIP2/webli")
        assert (by_tag.family, by_tag.architecture, by_tag.weights) == ("open_clip", "ViT-B-16-SigLIP2", "webli")
        assert by_tag.preprocessing().resize_mode == "squash"
        assert by_tag.preprocessing().mean == (0.5, 0.5, 0.5)
        own = tmp_path / "fine_tuned.pt"
        own.touch()
        by_file = source_of(f"open_clip:ViT-B-16-SigLIP2/{own}")
        assert by_file.preprocessing() == by_tag.preprocessing()  # open_clip itself would take OpenAI's
        assert source_of("hf-hub:org/name").architecture == "hf-hub:org/name"

    @pytest.mark.parametrize(("name", "said"), [
        ("open_clip:ViT-B-61/openai", "knows no \"ViT-B-61\"; did you mean ViT-B-16?"),
        ("open_clip:ViT-B-16/laion3b", "\"laion3b\" is no file and no tag of ViT-B-16; its tags are "),
        ("open_clip:ViT-B-16", "name weights for ViT-B-16"),
        ("open_clip:ViT-B-32/openai", "use open_clip:ViT-B-32-quickgelu/openai"),
        ("open_clip:local-dir:nowhere", "open_clip_config.json is missing"),
    ])  # fmt: skip
    def test_a_name_that_means_nothing(self, name, said):
        with pytest.raises(ValueError, match="open_clip") as raised:
            source_of(name).digest()
        assert said in str(raised.value)
        assert "\n" not in str(raised.value)

    def test_a_folder_that_asks_to_run_code_of_its_own(self, tmp_path):
        text = {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"trust_remote_code": True}}
        said = {"model_cfg": {"embed_dim": 8, "vision_cfg": {}, "text_cfg": text}, "preprocess_cfg": {}}
        (tmp_path / "open_clip_config.json").write_text(json.dumps(said))
        source = source_of(f"open_clip:local-dir:{tmp_path}")
        for opened in (source.load, source.digest, source.preprocessing):
            with pytest.raises(OSError, match="asks to run a tokeniser's own code, which may do anything"):
                opened()

    def test_a_model_of_a_hub_from_its_cache(self, tmp_path):
        """As it lies after a download; in a process of its own, since the hub's client reads its variables once."""
        cache = tmp_path / "hub" / "models--org--tiny"
        build("openai", cache / "snapshots" / "abc")
        (cache / "refs").mkdir()
        (cache / "refs" / "main").write_text("abc")
        code = (
            "from trainers.core.clip.backbones import load_backbone, source_of\n"
            "source = source_of('hf-hub:org/tiny')\n"
            "print(source.missing() or 'here', source.preprocessing().size, len(source.digest()))\n"
            "print(load_backbone('hf-hub:org/tiny').features)\n"
            "try:\n    source_of('hf-hub:org/gone').digest()\n"
            "except OSError as error:\n    print(str(error).splitlines())"
        )
        environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        here, features, gone = done.stdout.splitlines()[-3:]
        assert (here, features) == ("here (32, 32) 64", "32")
        assert gone.startswith("['open_clip_config.json of hf-hub:org/gone could not be fetched: ")

    @pytest.mark.parametrize(("name", "said"), [
        ("ViT-B/16", "ViT-B/16 is another backbone than the model's (5806e77cd80f, not 000000000000"),
        ("hf-hub:somebody/else", "hf-hub:somebody/else is not on this machine, and is fetched only if you"),
    ])  # fmt: skip
    def test_what_a_model_names_is_compared_before_it_is_fetched(self, name, said, tmp_path):
        """Nothing answers here, so whatever asked for a file would end in another message."""
        code = (
            "from trainers.core.clip.backbones import trained_backbone\n"
            f"try:\n    trained_backbone({name!r}, {{'backbone_sha256': 64 * '0'}})\n"
            "except ValueError as error:\n    print(error)"
        )
        environment = os.environ | {"HF_HOME": str(tmp_path), "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.stdout.startswith(said), done.stderr
        assert not {*tmp_path.iterdir()} - {tmp_path / ".nv"}  # where CUDA keeps what it compiles

    def test_a_folder_without_weights_is_not_random(self, tmp_path):
        name = build("pe", tmp_path / "pe")
        (tmp_path / "pe" / "open_clip_model.safetensors").unlink()
        with pytest.raises(ValueError, match="holds no weights"):
            load_backbone(name)
        assert load_backbone(name, weights=False).features == 32

    def test_other_weights_or_another_configuration_are_another_backbone(self, tmp_path):
        name = build("openai", tmp_path / "a")
        before = source_of(name).digest()
        config = tmp_path / "a" / "open_clip_config.json"
        read = json.loads(config.read_text())
        read["model_cfg"]["quick_gelu"] = False  # the same weights compute something else
        config.write_text(json.dumps(read))
        assert source_of(name).digest() != before

    def test_damaged_weights(self, tmp_path):
        name = build("pe", tmp_path / "pe")
        weights = tmp_path / "pe" / "open_clip_model.safetensors"
        whole = weights.read_bytes()
        weights.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match="open_clip cannot open"):
            load_backbone(name)

    def test_unknown_tokens_for_padding_are_refused(self, tmp_path):
        backbone = load_backbone(build("coca", tmp_path / "coca"))
        with pytest.raises(ValueError, match="takes for padding"):
            backbone.encode_text(["wow !~^"])

    def test_without_the_package_one_line_says_what_to_install(self, tmp_path):
        (tmp_path / "open_clip").mkdir()
        (tmp_path / "open_clip" / "__init__.py").write_text("raise ModuleNotFoundError(name='open_clip')")
        command = [sys.executable, "train.py", "--trainer", "ZeroshotCLIP", "--seed", "1", "--dataset-config-file",
                   "configs/datasets/demo.yaml", "--backbone", "open_clip:ViT-B-16/openai", "--output-dir",
                   str(tmp_path / "out")]  # fmt: skip
        before = os.environ.get("PYTHONPATH")  # where there may be other packages
        env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path)] + [before] * bool(before))}
        found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=patience(120))
        assert found.returncode == 1
        assert found.stderr.strip().splitlines()[-1] == (
            "error: backbones of open_clip need the package open_clip: pip install open_clip_torch transformers"
        )


def test_every_published_name_is_understood_or_refused_for_its_activation():
    for architecture, tag in open_clip.list_pretrained():
        source = OpenClipSource(f"open_clip:{architecture}/{tag}")
        assert source.preprocessing().size[0] > 0
        try:
            source.missing()
        except ValueError as error:
            assert "-quickgelu/" in str(error)  # noqa: PT017


# --- whole runs ---------------------------------------------------------------------------------------------------------

SETTINGS = {"CoOp": "TRAINER.COOP", "CoCoOp": "TRAINER.COCOOP", "LASP": "TRAINER.LASP", "MoCoOp": "TRAINER.MOCOOP"}


def words(name, root, out, trainer, *more):
    config = "ZeroshotCLIP" if trainer == "LinearProbe" else trainer
    return ["--trainer", trainer, "--root", root, "--seed", "1", "--backbone", name, "--output-dir", out,
            "--dataset-config-file", "configs/datasets/caltech101.yaml", "--config-file",
            f"configs/trainers/{config}/small.yaml",
            *acting(trainer, "DATASET.NUM_SHOTS", "2", "OPTIM.MAX_EPOCH", "2", "DATALOADER.NUM_WORKERS", "0",
                    "TRAIN.PRINT_FREQ", "1"), *more]  # fmt: skip


def losses(log: str) -> list[str]:
    return re.findall(r"loss ([\d.e+-]+) \(", log)


@pytest.mark.parametrize("kind", ["siglip", pytest.param("eva", marks=pytest.mark.slow)])
def test_a_run_says_what_it_stood_on_and_is_evaluated_with_that_only(kind, mini_root, tmp_path):
    name = build(kind, tmp_path / "model")
    done = run_train(*words(name, mini_root, tmp_path / "out", "MoCoOp", "DATASET.SUBSAMPLE_CLASSES", "base"))
    assert done.returncode == 0, done.stderr
    assert f"Text encoder: {'every prompt whole' if kind == 'siglip' else 'each token once'}" in done.stdout
    assert ("squash to 160x160" in done.stdout) == (kind == "siglip")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["backbone_family"] == "open_clip"
    assert results["backbone_architecture"] == f"local-dir:{tmp_path / 'model'}"
    assert results["backbone_sha256"] == source_of(name).digest()
    test = words(name, mini_root, tmp_path / "new", "MoCoOp", "DATASET.SUBSAMPLE_CLASSES", "new", "--eval-only",
                 "--model-dir", tmp_path / "out")  # fmt: skip
    again = run_train(*test)
    assert again.returncode == 0, again.stderr
    test[test.index(name)] = build("pe", tmp_path / "other")
    test[test.index(tmp_path / "new")] = tmp_path / "other_out"
    other = run_train(*test)
    assert other.returncode == 1
    assert "belongs to something else: backbone_sha256 there" in other.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["siglip", "eva"])
@pytest.mark.parametrize("trainer", ["MoCoOp", "CoOp", "CoCoOp", "LASP", "ZeroshotCLIP", "LinearProbe"])
def test_every_method_runs_and_goes_on_after_a_kill(kind, trainer, mini_root, tmp_path):
    name = build(kind, tmp_path / "model")
    base = ["DATASET.SUBSAMPLE_CLASSES", "base"]
    whole = run_train(*words(name, mini_root, tmp_path / "whole", trainer, *base))
    assert whole.returncode == 0, whole.stderr
    results = json.loads((tmp_path / "whole" / "results.json").read_text())
    assert results["total"] == 12
    if trainer not in SETTINGS:
        return
    assert len(losses(whole.stdout)) >= 2
    evaluated = run_train(*words(name, mini_root, tmp_path / "new", trainer, "DATASET.SUBSAMPLE_CLASSES", "new",
                                 "--eval-only", "--model-dir", tmp_path / "whole"))  # fmt: skip
    assert evaluated.returncode == 0, evaluated.stderr
    killed = words(name, mini_root, tmp_path / "killed", trainer, *base)
    command = [sys.executable, str(ROOT / "train.py"), *map(str, killed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as first:
        next(line for line in first.stdout if line.startswith("epoch [1/2]"))
        first.send_signal(signal.SIGTERM)
        first.stdout.read()
    assert first.returncode == 75
    assert run_train(*killed).returncode == 0
    states = [checkpoints.load(tmp_path / run / "prompt_learner" / "model.pth.tar-2") for run in ("whole", "killed")]
    for key, tensor in states[0]["state_dict"].items():
        assert torch.equal(tensor, states[1]["state_dict"][key]), key
    if trainer == "MoCoOp":
        shown = subprocess.run([sys.executable, "scripts/inspect_router.py", str(tmp_path / "whole")],
                               capture_output=True, text=True, cwd=ROOT, timeout=patience(120))  # fmt: skip
        assert shown.returncode == 0, shown.stderr


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["ZeroshotCLIP", "MoCoOp"])
def test_the_small_clip_is_the_same_through_open_clip(trainer, tmp_path):
    """Its weights as an open_clip checkpoint: the same zero-shot accuracy, the same losses to what a log shows."""
    state = {k: v.float().contiguous() for k, v in torch.load(ROOT / "assets" / "drawn_clip.pt").items() if v.ndim}
    scale = torch.load(ROOT / "assets" / "drawn_clip.pt")["logit_scale"].float()
    (tmp_path / "model").mkdir()
    save_file(state | {"logit_scale": scale}, tmp_path / "model" / "open_clip_model.safetensors")
    config = {
        "embed_dim": state["text_projection"].shape[1], "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "layers": 3, "width": state["visual.proj"].shape[0], "patch_size": 4},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": state["text_projection"].shape[0],
                     "heads": 2, "layers": 4},
    }  # fmt: skip
    (tmp_path / "model" / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    found = {}
    for name in ("assets/drawn_clip.pt", f"open_clip:local-dir:{tmp_path / 'model'}"):
        out = tmp_path / str(len(found))
        command = words(name, tmp_path / "data", out, trainer)
        command[command.index("configs/datasets/caltech101.yaml")] = "configs/datasets/demo.yaml"
        done = run_train(*command)
        assert done.returncode == 0, done.stderr
        found[name] = json.loads((out / "results.json").read_text())["correct"], losses(done.stdout)
    ours, theirs = found.values()
    assert ours[0] == theirs[0]
    assert (
        ours[1] == theirs[1] or max(abs(float(a) - float(b)) for a, b in zip(ours[1], theirs[1], strict=True)) <= 1e-3
    )


# Real architectures of base size, and the kind of tokeniser that stands in for those that a hub would be asked for.
REAL = {
    "ViT-B-16": "", "ViT-B-32-quickgelu": "", "ViT-S-16-alt": "", "RN50": "", "convnext_base": "", "coca_ViT-B-32": "",
    "EVA02-B-16": "", "PE-Core-B-16": "", "PE-Core-S-16-384": "", "MobileCLIP-S1": "", "MobileCLIP-B": "",
    "MobileCLIP2-S2": "", "MobileCLIP2-S3": "", "ViTamin-B": "", "ViT-B-16-SigLIP": "pieces",
    "ViT-B-16-SigLIP2": "pieces, no space first", "ViT-B-32-SigLIP2-256": "pieces, no space first",
    "ViT-L-14-CLIPA": "words between",
}  # fmt: skip


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("architecture", REAL)
def test_real_architectures(architecture, tmp_path, monkeypatch):
    own = open_clip.get_tokenizer
    if REAL[architecture]:
        tokenizer(REAL[architecture]).save_pretrained(tmp_path)
        text = open_clip.get_model_config(architecture)["text_cfg"]
        stand_in = open_clip.tokenizer.HFTokenizer(
            str(tmp_path), context_length=text.get("context_length", 77), **text.get("tokenizer_kwargs", {})
        )
        monkeypatch.setattr(open_clip, "get_tokenizer", lambda name: stand_in)
    backbone = load_backbone(f"open_clip:{architecture}", weights=False)
    theirs = stand_in if REAL[architecture] else own(architecture)
    expected = own_features(backbone, theirs, sentences()[:6])
    assert torch.allclose(backbone.encode_text(sentences()[:6]), expected, atol=1e-5)
    for mode in ("fast", "plain"):
        hard = hard_features(TextEncoder(backbone, mode), TEMPLATES[:1], NAMES, backbone.vocabulary)
        assert torch.allclose(hard[0], F.normalize(expected[:4], dim=-1), atol=1e-5)
    pictures = torch.randn(1, 3, *backbone.preprocessing.size)
    assert torch.equal(backbone.encode_image(pictures), backbone.model.encode_image(pictures, normalize=False))


@pytest.mark.parametrize("kind", ["openai", "open_clip"])
@pytest.mark.parametrize("place", ["end", "after_class"])
@pytest.mark.parametrize("entry", ["before_ln_pre", "after_ln_pre"])
def test_visual_prompts_stand_where_they_should(kind, place, entry, tiny_clip, tmp_path):
    """Against a loop over the tower's own blocks, written out for each place."""
    backbone = as_backbone(tiny_clip) if kind == "openai" else load_backbone(build("openai", tmp_path))
    v, blocks, W = backbone.visual, backbone.visual.transformer.resblocks, backbone.visual_width
    assert backbone.visual_blocks == len(blocks)
    size = backbone.preprocessing.size
    images = torch.randn(2, 3, *size)
    plain = backbone.encode_image(images)
    torch.testing.assert_close(backbone.encode_image(images, VisualPrompts({0: torch.zeros(0, W)})), plain)
    rows = {number: torch.randn(3, W, requires_grad=True) for number in range(len(blocks))}
    got = backbone.encode_image(images, VisualPrompts(rows, entry, place))
    (grad,) = torch.autograd.grad(got.square().sum(), rows[0], retain_graph=True)
    assert grad.abs().sum() > 0
    patches = v.conv1(images).flatten(2).permute(0, 2, 1)
    x = torch.cat([v.class_embedding.expand(2, 1, -1), patches], dim=1) + v.positional_embedding
    P = x.shape[1]

    def with_rows(x, number):
        own = rows[number].expand(2, -1, -1)
        bare = x[:, :P] if place == "end" else torch.cat([x[:, :1], x[:, 1 - P :]], dim=1)
        return torch.cat([bare, own], dim=1) if place == "end" else torch.cat([bare[:, :1], own, bare[:, 1:]], dim=1)

    x = v.ln_pre(with_rows(x, 0)) if entry == "before_ln_pre" else with_rows(v.ln_pre(x), 0)
    for number, block in enumerate(blocks):
        x = with_rows(x, number) if number else x
        x = block(x.permute(1, 0, 2)).permute(1, 0, 2) if kind == "openai" else block(x)
    expected = v.ln_post(x[:, 0]) @ v.proj
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=f"visual prompts for block {len(blocks)}: this tower has blocks 0 to"):
        backbone.encode_image(images, VisualPrompts({len(blocks): rows[0]}))
    with pytest.raises(ValueError, match="use before_ln_pre, after_ln_pre"):
        VisualPrompts(rows, "somewhere")


@pytest.mark.parametrize("family", ["openai", "siglip", "eva", "coca", "mt5"])
def test_deep_prompts_on_families_of_open_clip(family, tmp_path):
    """Where a tower has a door they change features and get gradients; where not, the message names it."""
    backbone = load_backbone(build(family, tmp_path))
    text = {"prompt_depth_text": 2, "prompt_depth_vision": 0}
    if isinstance(backbone, HubTextBackbone):
        model = IvlpCLIP(backbone, NAMES, **text)
        with pytest.raises(ValueError, match="text towers of transformers take no deep prompts"):
            model.text_features()
        return
    model = IvlpCLIP(backbone, NAMES, **text)
    with torch.no_grad():
        before = model.text_features()
        for rows in model.deep_rows:
            rows.mul_(2)
        assert (model.text_features() - before).abs().max() > 1e-6
    if not backbone.visual_blocks:
        with pytest.raises(ValueError, match="takes no prompts"):
            IvlpCLIP(backbone, NAMES, prompt_depth_text=1, prompt_depth_vision=1)
        return
    model = IvlpCLIP(backbone, NAMES, prompt_depth_text=2, prompt_depth_vision=2)
    model(torch.randn(2, 3, *backbone.preprocessing.size)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.trainable().values())


LEADERS = {
    "CLIPLoRA": lambda b: LoraCLIP(b, NAMES, "a photo of a {}.", dropout=0.0),
    "TwoSFS": lambda b: TwoStageCLIP(b, NAMES, "a photo of a {}."),
    "MMRL": lambda b: MmrlCLIP(b, NAMES, "a photo of a {}.", dim=8, first_block=1),
    "PLOTPP": lambda b: PlotCLIP(b, NAMES, ["a photo of a", "this is a photo"]),
    "CLIPSVD": lambda b: SvdCLIP(b, NAMES, "a photo of a {}."),
    "MMRLpp": lambda b: MmrlPlusPlusCLIP(b, NAMES, "a photo of a {}.", dim=8, first_block=0, proj_rank=2),
    "CoPrompt": lambda b: CoPromptCLIP(b, NAMES, prompt_depth=2),
    "NormTuning": lambda b: NormTunedCLIP(b, NAMES, ["a {}."]),
    "DPL": lambda b: DplCLIP(b, NAMES, "a photo of a {}.", ["a photo of a {}."]),
    "MoCoOp, tokens": lambda b: MixtureCLIP(b, NAMES, [["a {}."], ["the {}."], ["one {}."]], visual_tokens=[2, 1]),
    "MoCoOp, rank": lambda b: MixtureCLIP(b, NAMES, [["a {}."], ["the {}."]], visual_rank=2, train_visual_ln=False),
    "MoCoOp, conditional": lambda b: MixtureCLIP(b, NAMES, [["a {}."], ["the {}."]], conditional=True),
    "DPL, found": lambda b: DplCLIP(b, NAMES, "a {}.", ["a {}."], lengths=[[1] * b.visual_blocks, [2] * b.text_layers]),
}
# What each family lacks for a method; where nothing is said, it learns.
NO_ATTENTION, NO_PROMPTS = "tower of this backbone has no attention of torch's own", "takes no prompts"
LACKS = {
    (family, method): said
    for family in ("siglip", "eva")
    for method, said in (
        ("CLIPLoRA", NO_ATTENTION), ("CLIPSVD", NO_ATTENTION), ("MMRL", "the picture tower takes no tokens"),
        ("MMRLpp", "the picture tower takes no tokens"), ("PLOTPP", NO_PROMPTS), ("CoPrompt", NO_PROMPTS),
        ("DPL", NO_PROMPTS), ("DPL, found", NO_PROMPTS), ("MoCoOp, tokens", NO_PROMPTS), ("MoCoOp, rank", NO_PROMPTS),
    )
}  # fmt: skip
LACKS |= {("coca", name): "masks padding or is read at SOS, and takes no inserted rows" for name in ("MMRL", "MMRLpp")}
LACKS |= {("mt5", name): NO_ATTENTION for name in ("CLIPLoRA", "CLIPSVD")}
LACKS |= {
    ("mt5", name): "text towers of transformers take no deep prompts"
    for name in ("MMRL", "MMRLpp", "CoPrompt", "DPL", "DPL, found")
}
LACKS["mt5", "TwoSFS"] = "has none in one of them"


@pytest.mark.parametrize("family", ["openai", "siglip", "eva", "coca", "mt5"])
@pytest.mark.parametrize("method", LEADERS)
def test_what_changes_the_towers_learns_on_a_family_or_says_what_it_lacks(family, method, tmp_path):
    backbone = load_backbone(build(family, tmp_path))
    images = torch.randn(3, 3, *backbone.preprocessing.size)

    def learns():
        model = LEADERS[method](backbone).train()
        torch.nn.functional.cross_entropy(model(images), torch.tensor([0, 1, 2])).backward()
        return {name: float(p.grad.abs().sum()) for name, p in model.trainable().items() if p.grad is not None}

    lacks = LACKS.get((family, method), "")
    if lacks:
        with pytest.raises(ValueError, match=lacks) as refused:
            learns()
        assert "\n" not in str(refused.value)
        return
    grads = learns()
    assert sum(value > 0 for value in grads.values()) >= 1
    assert all(math.isfinite(value) for value in grads.values())
