"""CoOp: context optimisation (Zhou, Yang, Loy, Liu, "Learning to Prompt for Vision-Language Models", IJCV 2022).

Shapes: B pictures, C classes, M context tokens, W width of the text transformer, D features, H x W pixels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from dassl.engine import TRAINER_REGISTRY
from torch import nn
from torch.nn import functional as F
from yacs.config import CfgNode

from .base import PromptTrainer, declare
from .parts.model import AdaptedCLIP
from .parts.precision import cosine_logits
from .parts.prompts import EOT, SOS, PromptPlan, encode, initial_context, learned, tokenize_prompt


class CoOpCLIP(AdaptedCLIP):
    """CLIP with M learned context tokens before, around or after the class name.

    ctx_init: words that start the context (their BPE tokens are counted), or "" for n_ctx random ones (std 0.02).
    csc: class-specific contexts; ctx is then C x M x W instead of M x W. position: "end", "middle" or "front", where the
    class token stands. Learned: ctx. Raises ValueError for another position.
    """

    def __init__(
        self,
        clip_model: Any,
        classnames: Sequence[str],
        n_ctx: int = 16,
        ctx_init: str = "",
        csc: bool = False,
        position: str = "end",
        text_encoder: str = "fast",
        text_chunk: int = 0,
    ) -> None:
        super().__init__(clip_model, False, text_encoder, text_chunk)
        if position not in ("end", "middle", "front"):
            raise ValueError(f'CLASS_TOKEN_POSITION is "{position}": use end, middle or front')
        many = len(classnames) if csc and not ctx_init else 0  # words start one context for all, as in CoOp
        self.ctx = nn.Parameter(initial_context(clip_model.token_embedding, n_ctx, ctx_init, copies=many))
        M = self.ctx.shape[-2]
        before = {"end": M, "middle": M // 2, "front": 0}[position]
        sos, eot = encode(SOS), encode(EOT)
        contexts = [[learned(c * M + i) for i in range(M)] for c in range(max(many, 1))]
        L = self.text_encoder.context_length
        names = [tokenize_prompt("{}.", name, L) for name in classnames]
        filled = [[n.name + context[before:] + n.stop + eot for n in names] for context in contexts]
        if many:
            filled = [[row[c]] for c, row in enumerate(filled)]
        self.plan = PromptPlan([sos + context[:before] for context in contexts], filled, L)

    def text_features(self) -> torch.Tensor:
        """Normalised; C x D."""
        features_GCD = self.text_encoder(self.plan, self.ctx.reshape(-1, self.ctx.shape[-1]))
        return F.normalize(features_GCD.flatten(0, 1), dim=-1)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """exp(logit_scale) <f, w_c>; B x C. In evaluation mode the text is encoded once."""
        text_CD = self.kept(self.text_features, [self.ctx])
        return cosine_logits(self.image_features(images_BCHW), text_CD, self.logit_scale.exp())


@TRAINER_REGISTRY.register()
class CoOp(PromptTrainer):
    """Trains CoOpCLIP with cross-entropy."""

    KEY = "COOP"
    TEST_SETTINGS = ("CLASS_TOKEN_POSITION",)

    def build_model(self) -> None:
        cfg = self.settings
        self.model = CoOpCLIP(
            self.load_clip(), self.classnames, cfg.N_CTX, cfg.CTX_INIT, cfg.CSC, cfg.CLASS_TOKEN_POSITION,
            **self.encoder_options,
        )  # fmt: skip
        self.finish_model()

    def compute_loss(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        logits_BC = self.model(images)
        accuracy = 100.0 * (logits_BC.argmax(-1) == labels).float().mean()
        return F.cross_entropy(logits_BC, labels), {"acc": accuracy}

    def adopt(self, identity: dict) -> None:
        if self.model.ctx.ndim == 3 and identity.get("classnames", self.classnames) != self.classnames:
            raise ValueError("class-specific contexts belong to the classes they were trained on, and these are others")


def add_config(cfg: CfgNode) -> None:
    """Declares CoOp's settings below cfg.TRAINER.COOP."""
    PromptTrainer.add_config(cfg)
    declare(
        cfg.TRAINER,
        COOP={
            "N_CTX": 16,  # context tokens
            "CSC": False,  # class-specific contexts
            "CTX_INIT": "",  # words to start from
            "PREC": "fp16",  # fp16, fp32, amp, bf16
            "CLASS_TOKEN_POSITION": "end",  # middle, end, front
        },
    )
