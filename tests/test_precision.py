"""Every model with CLIP's weights in half precision, and under autocast, follows itself in single precision."""

import pytest
import torch
from clip.model import convert_weights
from conftest import DEVICE, golden_state

from trainers.clip_adapter.model import AdapterCLIP
from trainers.clip_lora.model import LoraCLIP
from trainers.clip_svd.model import SvdCLIP
from trainers.cocoop.trainer import CoCoOpCLIP
from trainers.coop.trainer import CoOpCLIP
from trainers.coprompt.model import CoPromptCLIP
from trainers.core.clip.backbones.openai import build_model
from trainers.dpl.model import DplCLIP
from trainers.ivlp.model import IvlpCLIP
from trainers.kgcoop.model import KgCoOpCLIP
from trainers.lasp.trainer import LaspCLIP
from trainers.maple.model import MapleCLIP
from trainers.mmrl.model import MmrlCLIP
from trainers.mmrl_plus_plus.model import MmrlPlusPlusCLIP
from trainers.mocoop.trainer import MixtureCLIP
from trainers.plot_plus_plus.model import PlotCLIP
from trainers.promptsrc.model import PromptSrcCLIP
from trainers.tcp.model import TcpCLIP
from trainers.tip_adapter_f.model import TrainedTipCLIP
from trainers.two_sfs.model import TwoStageCLIP
from trainers.zsclip.trainer import HardPromptCLIP

NAMES = ["accordion", "air_plane", "anchor", "ant"]
GROUPS = [["a photo of a {}."], ["a {} texture."]]
MODELS = {
    "MoCoOp": lambda clip, mode: MixtureCLIP(clip, NAMES, GROUPS, text_encoder=mode),
    "CoOp": lambda clip, mode: CoOpCLIP(clip, NAMES, n_ctx=4, ctx_init="a photo of a", text_encoder=mode),
    "CoCoOp": lambda clip, mode: CoCoOpCLIP(clip, NAMES, ctx_init="a photo of a", text_encoder=mode),
    "LASP": lambda clip, mode: LaspCLIP(clip, NAMES, ["a photo of a {}.", "a {}."], NAMES, text_encoder=mode),
    "KgCoOp": lambda clip, mode: KgCoOpCLIP(clip, NAMES, "a {}.", ctx_init="a photo of a", text_encoder=mode),
    "IVLP": lambda clip, mode: IvlpCLIP(clip, NAMES, prompt_depth_text=2, prompt_depth_vision=2, text_encoder=mode),
    "PromptSRC": lambda clip, mode: PromptSrcCLIP(
        clip, NAMES, ["a {}.", "a photo of a {}."], prompt_depth_text=2, prompt_depth_vision=2, text_encoder=mode
    ),
    "MaPLe": lambda clip, mode: MapleCLIP(clip, NAMES, prompt_depth=2, text_encoder=mode),
    "TipAdapterF": lambda clip, mode: TrainedTipCLIP(
        clip, NAMES, ["a {}."], torch.nn.functional.normalize(torch.randn(8, 64), dim=-1), torch.arange(8) // 2
    ),
    "TCP": lambda clip, mode: TcpCLIP(clip, NAMES, "X X X X {}.", "a {}.", block=1, text_encoder=mode),
    "CLIPLoRA": lambda clip, mode: LoraCLIP(clip, NAMES, "a {}.", dropout=0.0, text_encoder=mode),
    "PLOTPP": lambda clip, mode: PlotCLIP(clip, NAMES, ["a photo of a", "this is a"], text_encoder=mode),
    "MMRL": lambda clip, mode: MmrlCLIP(clip, NAMES, "a {}.", dim=16, first_block=1, text_encoder=mode),
    "TwoSFS": lambda clip, mode: TwoStageCLIP(clip, NAMES, "a {}.", text_encoder=mode),
    "CLIPSVD": lambda clip, mode: SvdCLIP(clip, NAMES, "a {}.", text_encoder=mode),
    "MMRLpp": lambda clip, mode: MmrlPlusPlusCLIP(
        clip, NAMES, "a {}.", dim=16, first_block=0, proj_rank=2, text_encoder=mode
    ),
    "CoPrompt": lambda clip, mode: CoPromptCLIP(
        clip, NAMES, [["a thing."]] * 4, ctx_init="a photo of a", prompt_depth=2, text_encoder=mode
    ),
    "DPL": lambda clip, mode: DplCLIP(clip, NAMES, "a {}.", ["a {}."], text_encoder=mode),
    "DPL, found": lambda clip, mode: DplCLIP(
        clip, NAMES, "a {}.", ["a photo of a {}.", "a {}."], lengths=[[1, 2], [3, 0]], distills=True, text_encoder=mode
    ),
    "MoCoOp, tokens": lambda clip, mode: MixtureCLIP(clip, NAMES, GROUPS, visual_tokens=[2, 1], text_encoder=mode),
    "MoCoOp, rank": lambda clip, mode: MixtureCLIP(clip, NAMES, GROUPS, visual_rank=1, text_encoder=mode),
    "MoCoOp, conditional": lambda clip, mode: MixtureCLIP(clip, NAMES, GROUPS, conditional=True, text_encoder=mode),
    "CLIPAdapter": lambda clip, mode: AdapterCLIP(clip, NAMES, ["a {}."]),
    "ZeroshotCLIP": lambda clip, mode: HardPromptCLIP(clip, NAMES, ["a photo of a {}."]),
}
LABELS = torch.tensor([0, 2, 3], device=DEVICE)


def built(method, mode, half):
    clip = build_model(golden_state()).float()  # every value is exact in half precision
    if half:
        convert_weights(clip)
    torch.manual_seed(0)
    return MODELS[method](clip, mode).to(DEVICE)


def logits_and_gradients(model, dtype=None):
    images = torch.linspace(-1, 1, 3 * 3 * 32 * 32, device=DEVICE).view(3, 3, 32, 32)
    autocast = torch.autocast(DEVICE, dtype=dtype or torch.bfloat16, enabled=dtype is not None)
    with autocast:
        logits = model.train()(images)
        if logits.requires_grad:
            torch.nn.functional.cross_entropy(logits, LABELS).backward()
        more = (images, torch.tensor(0, device=DEVICE)) if isinstance(model, CoPromptCLIP) else ()
        parts = model.losses(images, LABELS, *more) if hasattr(model, "losses") else {}
    with torch.no_grad(), autocast:
        tested = model.eval()(images)
    return logits, tested, parts, [p.grad for p in model.trainable().values() if p.grad is not None]


@pytest.mark.parametrize("kind", ["weights in float16", "autocast to float16", "autocast to bfloat16"])
@pytest.mark.parametrize("mode", ["fast", "plain"])
@pytest.mark.parametrize("method", MODELS)
def test_half_precision_follows_single_precision(method, mode, kind):
    exact, _, parts, gradients = logits_and_gradients(built(method, mode, half=False))
    dtype = {"autocast to float16": torch.float16, "autocast to bfloat16": torch.bfloat16}.get(kind)
    half, tested, half_parts, half_gradients = logits_and_gradients(built(method, mode, half=dtype is None), dtype)
    off = 0.3 if dtype is torch.bfloat16 else 0.05  # on logits of up to 100
    assert half.dtype == tested.dtype == torch.float32
    torch.testing.assert_close(half, exact, rtol=0, atol=off)
    torch.testing.assert_close(tested, exact, rtol=0, atol=off)
    for name in set(parts) & {"cls", "text", "gate"}:
        torch.testing.assert_close(half_parts[name], parts[name], rtol=0, atol=off)
    assert len(half_gradients) == len(gradients)
    assert all(g.dtype == torch.float32 and g.isfinite().all() for g in half_gradients)
