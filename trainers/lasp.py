"""LASP: text-to-text optimisation for language-aware soft prompting (Bulat, Tzimiropoulos, CVPR 2023).

Shapes: B pictures, C training classes, A >= C classes of the text loss, G soft prompts, T templates, M context tokens,
W width of the text transformer, D features, H x W pixels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from dassl.engine import TRAINER_REGISTRY
from torch import nn
from torch.nn import functional as F
from yacs.config import CfgNode

from .base import PromptTrainer, declare, from_template_file
from .parts.features import hard_features
from .parts.losses import text_to_text_loss, with_noise
from .parts.model import AdaptedCLIP
from .parts.precision import cosine_logits
from .parts.prompts import EOT, SOS, PromptPlan, clean_classname, encode, initial_context, learned, tokenize_prompt


class LaspPrompts(nn.Module):
    """LASP's learned tensors under the names of its checkpoints: ctx (M x W, or G x M x W), w (1 x D)."""

    def __init__(self, ctx: torch.Tensor, features: int, correction: bool) -> None:
        super().__init__()
        self.ctx = nn.Parameter(ctx)
        self.w = nn.Parameter(torch.zeros(1, features)) if correction else None


class LaspCLIP(AdaptedCLIP):
    """CLIP with one soft prompt, or G of them, each kept near its share of the hard templates.

    templates: T hard templates; with n_groups > 1 they are cut, in order, into that many even groups, and logits are
    averaged over the soft prompts. text_classnames begin with classnames. text_noise: sigma of the noise on the hard
    features, drawn with probability 0.5. Learned: prompt_learner.ctx, prompt_learner.w, image_encoder...ln_1/ln_2.
    """

    hard_TAD: torch.Tensor

    def __init__(
        self,
        clip_model: Any,
        classnames: Sequence[str],
        templates: Sequence[str],
        text_classnames: Sequence[str] | None = None,
        n_ctx: int = 4,
        ctx_init: str = "a photo of a",
        n_groups: int = 1,
        correction: bool = True,
        train_visual_ln: bool = True,
        text_noise: float = 0.05,
        text_encoder: str = "fast",
        text_chunk: int = 0,
    ) -> None:
        super().__init__(clip_model, train_visual_ln, text_encoder, text_chunk)
        if not 1 <= n_groups <= len(templates):
            raise ValueError(f"N_GROUPS is {n_groups}: use 1 to {len(templates)}, the number of templates")
        all_names = [clean_classname(name) for name in text_classnames or classnames]
        if all_names[: len(classnames)] != [clean_classname(name) for name in classnames]:
            raise ValueError("text_classnames must begin with classnames, in the same order")
        self.n_classes, self.text_noise = len(classnames), text_noise
        L = self.text_encoder.context_length
        hard_TAD = hard_features(self.text_encoder, templates, all_names)
        self.register_buffer("hard_TAD", hard_TAD, persistent=False)
        shares = torch.arange(len(templates)).tensor_split(n_groups)
        self.group_sizes = [len(share) for share in shares]
        ctx = initial_context(clip_model.token_embedding, n_ctx, ctx_init, copies=n_groups if n_groups > 1 else 0)
        self.prompt_learner = LaspPrompts(ctx, hard_TAD.shape[-1], correction)
        M, sos, eot = ctx.shape[-2], encode(SOS), encode(EOT)
        names = [tokenize_prompt("{}.", name, L) for name in all_names]
        tails = [n.name + n.stop + eot for n in names]
        prefixes = [sos + [learned(g * M + i) for i in range(M)] for g in range(n_groups)]
        self.plan = PromptPlan(prefixes, [tails] * n_groups, L)

    def text_features(self) -> torch.Tensor:
        """normalise(TextEncoder(prompt) + w); G x A x D."""
        ctx, w = self.prompt_learner.ctx, self.prompt_learner.w
        features_GAD = self.text_encoder(self.plan, ctx.reshape(-1, ctx.shape[-1]))
        return F.normalize(features_GAD if w is None else features_GAD + w.to(features_GAD.dtype), dim=-1)

    def logits(self, image_BD: torch.Tensor, text_GAD: torch.Tensor) -> torch.Tensor:
        """exp(logit_scale) times the mean over prompts of <f, w_gc>; B x C."""
        mean_CD = text_GAD[:, : self.n_classes].mean(0)
        return cosine_logits(image_BD, mean_CD, self.logit_scale.exp())

    def losses(self, images_BCHW: torch.Tensor, labels_B: torch.Tensor) -> dict[str, torch.Tensor]:
        """The two losses, unweighted scalars "cls" and "text", and "logits_BC"."""
        image_BD, text_GAD = self.image_features(images_BCHW), self.text_features()
        logits_BC = self.logits(image_BD, text_GAD)
        hard = with_noise(self.hard_TAD, self.text_noise).split(self.group_sizes)
        scale = self.logit_scale.exp()
        text = [text_to_text_loss(text_GAD[g : g + 1], own, scale) for g, own in enumerate(hard)]
        return {"cls": F.cross_entropy(logits_BC, labels_B), "text": torch.stack(text).mean(), "logits_BC": logits_BC}

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Logits, B x C. In evaluation mode the text is encoded once."""
        text_GAD = self.kept(self.text_features, list(self.prompt_learner.parameters()))
        return self.logits(self.image_features(images_BCHW), text_GAD)


@TRAINER_REGISTRY.register()
class LASP(PromptTrainer):
    """Trains LaspCLIP: L = L_cls + LASP_LOSS_WEIGHT L_text."""

    KEY = "LASP"

    def build_model(self) -> None:
        cfg = self.settings
        templates = list(cfg.LASP_PROMPTS) or from_template_file("lasp.yaml", "templates")
        scored = self.all_classnames if self.cfg.DATASET.INCLUDE_ALL_CLASSES else self.classnames
        correction = cfg.ENABLE_CORRECTION and cfg.TRAIN_W  # one that is not trained stays zero
        self.model = LaspCLIP(
            self.load_clip(), self.classnames, templates, scored, cfg.N_CTX, cfg.CTX_INIT, cfg.N_GROUPS, correction,
            cfg.FINETUNE_VIT_LN, cfg.TEXT_NOISE, **self.encoder_options,
        )  # fmt: skip
        self.finish_model(slow=self.model.tuned, slow_lr=0.1)

    def compute_loss(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        parts = self.model.losses(images, labels)
        weight = self.settings.LASP_LOSS_WEIGHT if self.settings.ENABLE else 0.0
        loss = parts["cls"] + weight * parts["text"]
        return loss, {f"loss_{name}": parts[name] for name in ("cls", "text")}

    def convert_state(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """LASP's own checkpoints hold the whole CLIP; only what was trained is taken."""
        learned_names = self.model.learned()
        foreign = any(name.endswith("token_prefix") for name in state)
        return {k: v for k, v in state.items() if k in learned_names} if foreign else state

    def identity(self) -> dict:
        return super().identity() | {"text_classes": "all" if self.cfg.DATASET.INCLUDE_ALL_CLASSES else "train"}


def add_config(cfg: CfgNode) -> None:
    """Declares LASP's settings below cfg.TRAINER.LASP, under its authors' names."""
    PromptTrainer.add_config(cfg)
    declare(cfg.DATASET, INCLUDE_ALL_CLASSES=True)  # in base-to-new, the text loss scores the new classes' names too
    declare(
        cfg.TRAINER,
        LASP={
            "ENABLE": True,  # the text loss
            "TRAIN_W": True,  # the correction
            "ENABLE_IMPLICIT_OP": "sum",  # this and the next are in LASP's configs, but its code does nothing with them
            "PRETRAINED_PROMPTS_DIR": None,
            "N_CTX": 4,  # context tokens
            "CTX_INIT": "a photo of a",
            "LASP_PROMPTS": [],  # hard templates; empty: configs/templates/lasp.yaml
            "N_GROUPS": 1,  # soft prompts
            "ENABLE_CORRECTION": True,
            "FINETUNE_VIT_LN": True,
            "LASP_LOSS_WEIGHT": 5.0,
            "TEXT_NOISE": 0.05,
            "PREC": "amp",
            "GRAD_CLIP": 1.0,
        },
    )
