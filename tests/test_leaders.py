"""Published methods beside their authors' code (tests/data/leaders/): eight steps in float64 from their start values.

The authors' CustomCLIP was made to start on a CPU in float64 (no .cuda(), no .half(), CLIP from a file, widths read from
the model) and not otherwise changed; the pictures are drawn here as they were for it.
"""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import CLASSES as NAMES
from conftest import DATA, ROOT, eight_batches, golden_in_double, golden_state, tensors_in

from trainers.clip_adapter.model import AdapterCLIP
from trainers.clip_lora.model import LoraCLIP
from trainers.clip_svd.model import SvdCLIP
from trainers.coprompt.model import CoPromptCLIP
from trainers.coprompt.trainer import CoPrompt, sentences_on
from trainers.core.clip.backbones.openai import build_model
from trainers.core.settings.configure import configure
from trainers.core.settings.text_files import read_yaml
from trainers.core.training.averaging import EpochAverage, gaussian
from trainers.core.training.schedule import optimiser_and_schedule
from trainers.ivlp.model import IvlpCLIP
from trainers.kgcoop.model import KgCoOpCLIP
from trainers.kgcoop.trainer import TEACHERS
from trainers.maple.model import MapleCLIP
from trainers.mmrl.model import MmrlCLIP
from trainers.mmrl.options import MmrlOptions
from trainers.mmrl.trainer import MMRL
from trainers.mmrl_plus_plus.model import MmrlPlusPlusCLIP
from trainers.plot_plus_plus.model import PlotCLIP, transport
from trainers.prograd.model import ProGradCLIP, project
from trainers.prograd.trainer import TEMPLATES
from trainers.promptsrc.model import PromptSrcCLIP
from trainers.promptsrc.trainer import PromptSRC
from trainers.tcp.model import TcpCLIP
from trainers.two_sfs.model import TwoStageCLIP
from trainers.zsclip.model import HardPromptCLIP

LEARNER = "prompt_learner."
AIRCRAFT = ("X X X X {}, a type of aircraft.", "a photo of an aircraft {}.")
DEEP = {"ctx": f"{LEARNER}ctx", "visual_rows.0": "image_encoder.VPT",
        "visual_rows.1": "image_encoder.transformer.resblocks.1.VPT_shallow",
        "deep_rows.0": "text_encoder.transformer.resblocks.1.VPT_shallow"}  # fmt: skip
BLOCKS = "transformer.resblocks"
LORA = {
    f"{ours}.{BLOCKS}.{i}.attn.lora_{part}_{m}": f"{theirs}{BLOCKS}.{i}.attn.{m}_proj.w_lora_{part}"
    for ours, theirs in (("image_encoder", "visual."), ("text_encoder.model", "")) for i in range(2)
    for m in "qkv" for part in "AB"
}  # fmt: skip
REPRESENTATION = {"tokens": "representation_learner.compound_rep_tokens", "proj_rep": "image_encoder.proj_rep"}
REPRESENTATION |= {
    f"to_{tower}.{i}.{part}": f"representation_learner.compound_rep_tokens_r2{tower[0]}proj.{i}.{part}"
    for tower in ("text", "vision") for i in range(2) for part in ("weight", "bias")
}  # fmt: skip
COUPLED = {"ctx": f"{LEARNER}ctx", "deep_rows.0": f"{LEARNER}compound_prompts_text.0"}
COUPLED |= {f"proj.{part}": f"{LEARNER}proj.{part}" for part in ("weight", "bias")}
COUPLED |= {f"projections.0.{part}": f"{LEARNER}compound_prompt_projections.0.{part}" for part in ("weight", "bias")}

ADAPTED = COUPLED | {
    f"adapter_{side}.{ours}.weight": f"adapter_{side}.fc.{theirs}.weight"
    for side in ("image", "text") for ours, theirs in (("down", 0), ("up", 2))
}  # fmt: skip
SHARED_MAPS = {"tokens": REPRESENTATION["tokens"], "rep_down": "image_encoder.A", "rep_up": "image_encoder.B"}
SHARED_MAPS |= {
    f"to_{tower}.{ours}": f"representation_learner.srra_r2{tower[0]}proj.{theirs}"
    for tower in ("text", "vision") for ours, theirs in (
        ("weight", "weight"), *((f"{part}.{i}", f"srra.{i}.{name}") for i in range(2)
                                for part, name in (("down", "A"), ("up", "B"), ("bias", "bias"))))
}  # fmt: skip

# method -> how its model is made, its loss, and its tensors' names in the authors' code
METHODS = {
    "kgcoop": (
        lambda clip: KgCoOpCLIP(clip, NAMES, TEACHERS["DescribableTextures"], ctx_init="a photo of a"),
        lambda parts: parts["cls"] + 8 * parts["text"], {"ctx": f"{LEARNER}ctx"},
    ),
    "prograd": (
        lambda clip: ProGradCLIP(clip, NAMES, TEMPLATES["OxfordPets"]), lambda parts: parts["cls"],
        {"ctx": f"{LEARNER}ctx"},
    ),
    "ivlp": (lambda clip: IvlpCLIP(clip, NAMES, prompt_depth_text=2, prompt_depth_vision=2), None, DEEP),
    "maple": (lambda clip: MapleCLIP(clip, NAMES, prompt_depth=2), None, COUPLED),
    "clip_adapter": (
        lambda clip: AdapterCLIP(clip, NAMES, ["{} texture."]), None,
        {"adapter.down.weight": "fc.0.weight", "adapter.up.weight": "fc.2.weight"},
    ),
    "clip_lora": (lambda clip: LoraCLIP(clip, NAMES, "a photo of a {}."), None, LORA),
    "mmrl": (
        lambda clip: MmrlCLIP(clip, NAMES, "a photo of a {}, a type of aircraft.", dim=16, first_block=0),
        lambda parts: 0.7 * parts["class"] + 0.3 * parts["rep"] + 6 * (parts["image"] + parts["text"]), REPRESENTATION,
    ),
    "mmrl_plus_plus": (
        lambda clip: MmrlPlusPlusCLIP(clip, NAMES, "a photo of a {}, a type of aircraft.", dim=16, first_block=0, beta=0.7,
                                      proj_rank=8, map_rank=2),
        lambda parts: 0.7 * parts["class"] + 0.3 * parts["rep"] + 6 * (parts["image"] + parts["text"]), SHARED_MAPS,
    ),
    "coprompt": (
        lambda clip: CoPromptCLIP(clip, NAMES, sentences_on(NAMES, str(DATA / "leaders" / "coprompt_sentences.json")),
                                  prompt_depth=2),
        lambda parts: parts["cls"] + 8 * (parts["text"] + parts["image"]), ADAPTED,
    ),
    "tcp": (
        lambda clip: TcpCLIP(clip, NAMES, *AIRCRAFT, block=1), lambda parts: parts["cls"] + 8 * parts["text"],
        {"ctx": f"{LEARNER}ctx",
         **{name: f"{LEARNER}{name}" for name in (f"meta_net.linear{i}.{p}" for i in (1, 2) for p in ("weight", "bias"))}},
    ),
    "promptsrc": (
        lambda clip: PromptSrcCLIP(clip, NAMES, PromptSRC.templates_of(None), n_ctx_text=4, n_ctx_vision=4,
                                   prompt_depth_text=2, prompt_depth_vision=2),
        lambda parts: parts["cls"] + 25 * parts["text"] + 10 * parts["image"] + parts["logits"], DEEP,
    ),
}  # fmt: skip


@pytest.mark.parametrize("encoder", ["fast", "plain"])
@pytest.mark.parametrize("method", METHODS)
def test_eight_steps_of_the_authors_code(method, encoder):
    make, loss_of, names = METHODS[method]
    theirs = tensors_in(f"leaders/{method}.npz")
    model = make(golden_in_double()).double()
    model.text_encoder.mode = encoder
    own = model.trainable()
    assert own.keys() == names.keys()
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(theirs[f"start/{names[name]}"])
    optimiser = torch.optim.SGD(own.values(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    images, labels = eight_batches()
    others, _ = eight_batches(2)
    average = EpochAverage(gaussian(4, 3, 1)) if method == "promptsrc" else None
    losses, conflicts = [], 0
    model.train()
    for step, (batch, wanted) in enumerate(zip(images, labels, strict=True)):
        optimiser.zero_grad()
        torch.manual_seed(100 + step)  # for dropout, where there is any
        if method == "prograd":
            parts = model.losses(batch, wanted)
            assert parts["guide"].item() == pytest.approx(theirs["guides"][step].item(), rel=1e-10)
            parts["guide"].backward(retain_graph=True)
            guide, model.ctx.grad = model.ctx.grad, None
            loss = parts["cls"]
        elif loss_of is None:
            loss = torch.nn.functional.cross_entropy(model(batch), wanted)
        else:
            more = (others[step], theirs["picks"][step]) if method == "coprompt" else ()
            loss = loss_of(model.losses(batch, wanted, *more))
        loss.backward()
        if method == "prograd":
            conflicts += int((model.ctx.grad * guide).sum() < 0)
            model.ctx.grad.copy_(project(model.ctx.grad, guide, 1.0))
        if step == 0:
            for name, tensor in own.items():
                expected = theirs[f"grad/{names[name]}"]
                torch.testing.assert_close(tensor.grad, expected, rtol=1e-8, atol=1e-10 * float(expected.abs().max()))
        optimiser.step()
        losses.append(loss.item())
        if average is not None and step % 2:
            average.epoch_ended(step // 2, own)
    assert method != "prograd" or 0 < conflicts < 8
    np.testing.assert_allclose(losses, theirs["losses"].numpy(), rtol=1e-10)
    for name, tensor in own.items():
        torch.testing.assert_close(tensor.detach(), theirs[f"after/{names[name]}"], rtol=1e-9, atol=1e-11)
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(images[0]), theirs["logits"], rtol=1e-8, atol=1e-9)
        if method.startswith("mmrl"):
            model.both_heads = False
            torch.testing.assert_close(model(images[0]), theirs["first"], rtol=1e-8, atol=1e-9)


def test_depths_and_words_that_do_not_fit(tiny_clip):
    for options, said in (({"prompt_depth_text": 3}, "PROMPT_DEPTH_TEXT is 3, but this tower has 2 blocks"),
                          ({"prompt_depth_vision": 3}, "PROMPT_DEPTH_VISION is 3, but this tower has 2 blocks"),
                          ({"n_ctx_text": 5}, 'CTX_INIT "a photo of a" has 4 tokens, fewer than the 5')):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            IvlpCLIP(tiny_clip, NAMES, **{"prompt_depth_text": 2, "prompt_depth_vision": 2} | options)
    with pytest.raises(ValueError, match="BLOCK is 8, but this text tower has blocks 0 to 1: use one of 1 on"):
        TcpCLIP(tiny_clip, NAMES, *AIRCRAFT)
    with pytest.raises(
        ValueError, match=r'N_CTX is 5, but "X X X X {}, a type of aircraft\." has 4 tokens before the name'
    ):
        TcpCLIP(tiny_clip, NAMES, *AIRCRAFT, block=1, n_ctx=5)
    with pytest.raises(ValueError, match="PROMPT_DEPTH is 9, but this tower has 2 blocks"):
        MapleCLIP(tiny_clip, NAMES)
    with pytest.raises(ValueError, match="no epoch from 1 to 3 has a weight around GPA_MEAN 900"):
        gaussian(3, 900, 1)


def test_prompts_in_the_text_tower_alone_leave_features_as_they_are(tiny_clip):
    model = IvlpCLIP(tiny_clip, NAMES, prompt_depth_text=2, prompt_depth_vision=0)
    assert model.from_features
    assert set(model.trainable()) == {"ctx", "deep_rows.0"}
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model.encoded(images), tiny_clip.encode_image(images))


def test_a_guide_of_zero_changes_nothing():
    grad = torch.tensor([1.0, -2.0])
    assert torch.equal(project(grad, torch.zeros(2), 1.0), grad)
    torch.testing.assert_close(project(grad, torch.tensor([0.0, 3.0]), 1.0), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(project(grad, torch.tensor([0.0, 3.0]), 0.5), torch.tensor([1.0, -1.0]))


def test_low_rank_additions_of_one_tower_and_of_none(tiny_clip, literate_clip_file):
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    plain = HardPromptCLIP(build_model(golden_state()).float(), NAMES, ["a photo of a {}."]).eval()
    for towers, of_features in (("text", True), ("vision", False), ("both", False)):
        model = LoraCLIP(
            build_model(golden_state()).float(), NAMES, "a photo of a {}.", towers=towers, matrices=["q", "v"]
        )
        assert model.from_features == of_features
        torch.testing.assert_close(model.eval()(images), plain(images))  # B is zero
        torch.nn.functional.cross_entropy(model.train()(images), labels).backward()
        grads = {name: float(p.grad.abs().max()) for name, p in model.trainable().items()}
        assert len(grads) == (16 if towers == "both" else 8)
        assert all((value > 0) == ("lora_B" in name) for name, value in grads.items()), grads
        again = LoraCLIP(model.backbone, NAMES[:3], "a {}.", towers=towers, matrices=["q", "v"])
        assert again.trainable().keys() == model.trainable().keys()
        with pytest.raises(ValueError, match="low-rank additions of another shape"):
            LoraCLIP(model.backbone, NAMES, "a {}.", rank=3, towers=towers, matrices=["q", "v"])


def test_chunks_draw_the_same_masks_in_the_backward_pass():
    """Along the gradient, the loss with the same masks rises by the gradient's length; with others it would not."""
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    for chunk in (6, 4):
        clip = build_model(golden_state()).float()
        model = LoraCLIP(clip, NAMES, "a photo of a {}.", towers="text", text_chunk=chunk).train()
        own = list(model.trainable().values())

        def loss(model=model):
            torch.manual_seed(0)
            return torch.nn.functional.cross_entropy(model(images), labels)

        with torch.no_grad():
            for p in own:
                p.copy_(torch.linspace(-0.1, 0.1, p.numel()).view(p.shape))
        before = loss()
        before.backward()
        length = torch.cat([p.grad.flatten() for p in own]).norm()
        with torch.no_grad():
            for p in own:
                p += 1e-3 * p.grad / length
            assert float(loss() - before.detach()) == pytest.approx(1e-3 * float(length), rel=0.05), chunk


@pytest.mark.parametrize("encoder", ["fast", "plain"])
def test_two_stages_of_the_authors_code(encoder):
    """2SFS: six steps for the LayerNorms and four for the classifier, by AdamW with a cosine each; base and new classes.

    Of the authors' list of LayerNorms those outside the blocks are frozen again by the loop that makes it; so here."""
    theirs = tensors_in("leaders/two_sfs.npz")
    clip = golden_in_double()
    model = TwoStageCLIP(clip, NAMES, "a photo of a {}.").double()
    model.text_encoder.mode = encoder
    optim = configure([], [("OPTIM.NAME", "adamw"), ("OPTIM.LR", "0.01"), ("OPTIM.WEIGHT_DECAY", "0.01"), ("SEED", "1"),
                           ("OPTIM.SCHEDULE", "step"), ("OPTIM.LR_SCHEDULER", "cosine"), ("OPTIM.WARMUP_EPOCH", "0"),
                           ("OPTIM.LR_MIN", "1e-6"), ("OPTIM.MAX_EPOCH", "1")]).OPTIM  # fmt: skip
    own = model.trainable()
    optimiser, schedule = optimiser_and_schedule(optim, [{"params": list(own.values())}], 10, restart=6)
    images, labels = eight_batches()
    losses = []
    model.train()
    for step in range(10):
        if step == 6:
            model.begin_second_stage()
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images[step % 8]), labels[step % 8])
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    np.testing.assert_allclose(losses, theirs["losses"].numpy(), rtol=1e-10)
    torch.testing.assert_close(own["classifier"].detach(), theirs["classifier"], rtol=1e-9, atol=1e-11)
    for name, tensor in own.items():
        if name != "classifier":
            known = name.replace("image_encoder.", "visual.").replace("text_encoder.model.", "")
            torch.testing.assert_close(tensor.detach(), theirs[f"after/{known}"], rtol=1e-9, atol=1e-11)
    assert len(own) == 1 + sum(name.startswith("after/") for name in theirs)
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(images[0]), theirs["base"], rtol=1e-9, atol=1e-9)
        asked = TwoStageCLIP(model.backbone, ["beaver", "ant", "bonsai"], "a photo of a {}.", NAMES).double()
        for name, tensor in model.checkpoint_tensors().items():
            asked.checkpoint_tensors()[name].copy_(tensor)
        asked.weights_changed()
        torch.testing.assert_close(asked.eval()(images[0]), theirs["new"], rtol=1e-9, atol=1e-9)


def test_classes_of_one_name_have_a_row_each(tiny_clip):
    """ImageNet has two kinds of missile."""
    model = TwoStageCLIP(tiny_clip, ["missile", "ant", "missile"], "a {}.", ["ant", "missile", "missile"])
    assert model.row_C.tolist() == [1, 0, 2]


@pytest.mark.parametrize(("dataset", "both"), [("ImageNet", True), ("ImageNetV2", False)])
def test_mmrl_answers_with_one_head_on_another_dataset_of_the_same_names(dataset, both):
    asked = SimpleNamespace(
        cfg=configure([], [("DATASET.NAME", dataset)]), classnames=NAMES, options=MmrlOptions(), model=SimpleNamespace()
    )
    MMRL.choose_heads(asked, {"dataset": "ImageNet", "classnames": NAMES})
    assert asked.model.both_heads == both


@pytest.mark.parametrize("encoder", ["fast", "plain"])
@pytest.mark.parametrize(("dataset", "file"), [("EuroSAT", "plot_plus_plus"), ("ImageNet", "plot_plus_plus_short")])
def test_optimal_transport_of_the_authors_code(dataset, file, encoder):
    """PLOT++: four steps for the visual prompts with the product of means, then four for all, by a new optimiser. EuroSAT
    has phrases that are longer than the first, and ImageNet one that is shorter and takes EOT and a token of the names."""
    theirs = tensors_in(f"leaders/{file}.npz")
    phrases = read_yaml(ROOT / "trainers" / "plot_plus_plus" / "phrases.yaml")[dataset]
    model = PlotCLIP(golden_in_double(), NAMES, phrases).double()
    model.text_encoder.mode = encoder
    own = model.trainable()
    torch.testing.assert_close(own["ctx"].detach(), theirs["start/prompt_learner.ctx"])
    with torch.no_grad():
        own["ctx_vision"].copy_(theirs["start/prompt_learner.ctx_vision"])
    optimiser = torch.optim.SGD(own.values(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    images, labels = eight_batches()
    losses = []
    model.train()
    for step in range(8):
        if step == 4:
            model.begin_second_stage()
            optimiser.state.clear()
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images[step]), labels[step])
        loss.backward()
        if step == 4:
            for name, tensor in own.items():
                expected = theirs[f"grad/prompt_learner.{name}"]
                torch.testing.assert_close(tensor.grad, expected, rtol=1e-8, atol=1e-10 * float(expected.abs().max()))
        optimiser.step()
        losses.append(loss.item())
    np.testing.assert_allclose(losses, theirs["losses"].numpy(), rtol=1e-10)
    for name, tensor in own.items():
        torch.testing.assert_close(tensor.detach(), theirs[f"after/prompt_learner.{name}"], rtol=1e-9, atol=1e-11)
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(images[0]), theirs["logits"], rtol=1e-9, atol=1e-9)
        with pytest.raises(ValueError, match=r"PLOT\+\+ cannot be exported"):
            model.exported()


def test_transport_has_the_marginals_that_it_should():
    kernel = torch.rand(3, 5, 4, 2, dtype=torch.float64) + 0.1
    plan = transport(kernel, 0)
    torch.testing.assert_close(plan.sum(-1), torch.full((3, 5, 4), 1 / 4, dtype=torch.float64))
    torch.testing.assert_close(plan.sum(-2), torch.full((3, 5, 2), 1 / 2, dtype=torch.float64))
    alone = torch.cat([transport(one[None], 0) for one in kernel])
    torch.testing.assert_close(alone, plan)  # without the stop, a picture's plan is its own


def test_a_schedule_begins_anew():
    optim = configure([], [("SEED", "1"), ("OPTIM.LR", "0.1"), ("OPTIM.MAX_EPOCH", "7"), ("OPTIM.LR_SCHEDULER", "cosine"),
                           ("OPTIM.WARMUP_EPOCH", "1"), ("OPTIM.WARMUP_TYPE", "constant"), ("OPTIM.WARMUP_CONS_LR", "0.01"),
                           ("OPTIM.NAME", "sgd")]).OPTIM  # fmt: skip

    def rates(epochs, restart):
        optim.defrost()
        optim.MAX_EPOCH = epochs
        optimiser, schedule = optimiser_and_schedule(
            optim, [{"params": [torch.nn.Parameter(torch.zeros(1))]}], 1, restart
        )
        found = []
        for _ in range(epochs):
            found.append(optimiser.param_groups[0]["lr"])
            optimiser.step()
            schedule.step()
        return found

    assert rates(7, 3) == rates(3, 0) + rates(4, 0)


def svd_name(theirs):
    """visual.transformer.resblocks.0.attn.q_proj.vector_S -> our tensor of three, and the place in it."""
    tower, place = (
        ("image_encoder", theirs.removeprefix("visual."))
        if theirs.startswith("visual.")
        else ("text_encoder.model", theirs)
    )
    block, kind, layer, _ = place.rsplit(".", 3)
    part = layer.removesuffix("_proj")
    if kind == "attn" and part in ("q", "k", "v"):
        return f"{tower}.{block}.attn.parametrizations.in_proj_weight.0.values", "qkv".index(part)
    return f"{tower}.{block}.{kind}.{'out_proj' if layer == 'proj' else layer}.parametrizations.weight.0.values", 0


@pytest.mark.parametrize("encoder", ["fast", "plain"])
@pytest.mark.parametrize("swings", [False, True])
def test_eight_steps_of_singular_values(encoder, swings):
    """CLIP-SVD's own loop, with a constant rate, and with its cosine, planned for two epochs and moved at each step."""
    theirs = tensors_in("leaders/clip_svd.npz")
    prefix = "swing/" if swings else ""
    model = SvdCLIP(golden_in_double(), NAMES, "a photo of a {}.").double()
    model.text_encoder.mode = encoder
    own = model.trainable()
    starts = {name.removeprefix("start/"): value for name, value in theirs.items() if name.startswith("start/")}
    assert {svd_name(name)[0] for name in starts} == own.keys()
    for name, value in starts.items():
        ours, place = svd_name(name)
        torch.testing.assert_close(own[ours][place].detach(), value[0], rtol=1e-10, atol=1e-12)
    given = {"NAME": "adamw", "LR": "4e-4", "WEIGHT_DECAY": "1e-2", "SCHEDULE": "step", "LR_SCHEDULER": "cosine",
             "WARMUP_EPOCH": "0", "LR_MIN": "1e-6", "MAX_EPOCH": "2"}  # fmt: skip
    optim = configure([], [(f"OPTIM.{name}", value) for name, value in given.items()]).OPTIM
    optimiser, schedule = optimiser_and_schedule(optim, [{"params": list(own.values())}], 1)
    images, labels = eight_batches()
    losses = []
    model.train()
    for step in range(8):
        if not swings:
            optimiser.param_groups[0]["lr"] = 4e-4
        assert optimiser.param_groups[0]["lr"] == pytest.approx(theirs[f"{prefix}rates"][step].item())
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images[step]), labels[step])
        loss.backward()
        if step == 0 and not swings:
            for name in starts:
                ours, place = svd_name(name)
                expected = theirs[f"grad/{name}"][0]
                torch.testing.assert_close(
                    own[ours].grad[place], expected, rtol=1e-8, atol=1e-10 * float(expected.abs().max())
                )
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    np.testing.assert_allclose(losses, theirs[f"{prefix}losses"].numpy(), rtol=1e-10)
    for name in starts:
        ours, place = svd_name(name)
        torch.testing.assert_close(own[ours][place].detach(), theirs[f"{prefix}after/{name}"][0], rtol=1e-9, atol=1e-11)
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(images[0]), theirs[f"{prefix}logits"], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    ("content", "said"),
    [('["x"]', "holds no sentences on classes"), ('{"ant": "a"}', "holds no sentences on classes"),
     ('{"ant": ["an ant."]}', 'no sentences on "accordion"'),
     (json.dumps({name: ["a."] * (1 + (name == "bass")) for name in NAMES}), '1 sentences on "accordion" and 2 on "bass"')],
)  # fmt: skip
def test_sentences_that_do_not_fit_are_refused(content, said, tmp_path):
    (tmp_path / "sentences.json").write_text(content)
    with pytest.raises(ValueError, match=said):
        sentences_on(NAMES, str(tmp_path / "sentences.json"))


def test_sentences_are_part_of_what_run_it_is(tmp_path):
    """By what the file holds; a file that is not there, and a sentence longer than the context, are named in short."""
    file = tmp_path / "sentences.json"
    cfg = configure([], [("TRAINER.COPROMPT.SENTENCES", str(file))])
    with pytest.raises(ValueError, match="and there is no such file"):
        CoPrompt.templates_of(cfg)
    file.write_text('{"ant": ["an ant."]}')
    before = CoPrompt.templates_of(cfg)
    file.write_text('{"ant": ["an ant is small."]}')
    assert before != CoPrompt.templates_of(cfg)
    with pytest.raises(ValueError, match=r"has 10[0-9] tokens") as refused:
        CoPromptCLIP(build_model(golden_state()).float(), ["ant"], [["very " * 100]], prompt_depth=2)
    assert len(str(refused.value)) < 150
