"""MoCoOp: mixture-of-prompts learning (Du, Niu, Zhao, Frontiers in AI 2025, arXiv 2409.12011).

CLIP stays frozen. Each group of hard templates has one soft prompt; a router picks, per picture, the soft prompts whose
text features make its logits. docs/METHOD.md goes through the equations.

Shapes: B pictures, C training classes, A >= C classes of the text loss, G groups (soft prompts, experts), D features,
H x W pixels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from dassl.engine import TRAINER_REGISTRY
from torch import nn
from torch.nn import functional as F
from yacs.config import CfgNode

from .base import PromptTrainer, declare, template_groups
from .parts.features import check_groups, group_means, hard_features
from .parts.losses import gate_target, soft_cross_entropy, text_to_text_loss, with_noise
from .parts.mixture import mixed_logits, mixture_weights
from .parts.model import AdaptedCLIP
from .parts.precision import einsum, linear
from .parts.prompts import SoftPrompts, clean_classname


class MixtureCLIP(AdaptedCLIP):
    """CLIP with a mixture of soft prompts and a router; needs neither Dassl nor a configuration.

    clip_model: a CLIP of OpenAI's `clip`, used in place (its parameters are frozen but the visual LayerNorms).
    classnames: the C classes to tell apart, in label order.
    template_groups: G lists of hard templates, each with one `{}`; the first of a list starts its soft prompt.
    text_classnames: the A names that the text loss scores; they begin with `classnames`, which is the default.
    top_k: experts per picture, at most G. correction: learn LASP's vector delta, shared by all prompts.
    train_visual_ln: train ln_1 and ln_2 of a visual transformer (a ResNet has none).
    gate_target: "label" (s_g = <f, p_gy>) or "class_mean" (s_g = <f, mean over classes of p_g>, needs no label).
    gate_detach: stop gradients through the gate's target. text_logit_scale: a number, or "clip" for exp(logit_scale).
    text_noise: sigma of LASP's noise on the hard features. router: "learned", or "uniform" for an ablation.
    text_encoder: "fast" or "plain"; text_chunk: prompts encoded at a time, 0 by memory.

    Learned: prompts.before.<g>, prompts.after.<g> (tokens x W), correction (1 x D), router.weight (G x D),
    router.bias (G), image_encoder...ln_1/ln_2. Raises ValueError for groups, classes or options that make no sense.
    """

    prototypes_GAD: torch.Tensor

    def __init__(
        self,
        clip_model: Any,
        classnames: Sequence[str],
        template_groups: Sequence[Sequence[str]],
        text_classnames: Sequence[str] | None = None,
        top_k: int = 2,
        correction: bool = True,
        train_visual_ln: bool = True,
        gate_target: str = "label",
        gate_boost: float = 10.0,
        gate_detach: bool = False,
        text_logit_scale: float | str = 1.0,
        text_noise: float = 0.0,
        router: str = "learned",
        text_encoder: str = "fast",
        text_chunk: int = 0,
    ) -> None:
        super().__init__(clip_model, train_visual_ln, text_encoder, text_chunk)
        check_groups(template_groups)
        names = [clean_classname(name) for name in classnames]
        all_names = [clean_classname(name) for name in text_classnames or classnames]
        if all_names[: len(names)] != names:
            raise ValueError("text_classnames must begin with classnames, in the same order")
        if gate_target not in ("label", "class_mean"):
            raise ValueError(f'GATE_TARGET is "{gate_target}": use "label" or "class_mean"')
        if router not in ("learned", "uniform"):
            raise ValueError(f'ROUTER is "{router}": use "learned" or "uniform"')
        if isinstance(text_logit_scale, str) and text_logit_scale != "clip":
            raise ValueError(f'TEXT_LOGIT_SCALE is "{text_logit_scale}": use a number or "clip"')
        if top_k < 1:
            raise ValueError(f"TOP_K is {top_k}: use at least 1")
        G = len(template_groups)
        self.n_classes, self.top_k = len(names), min(top_k, G)
        self.gate_target, self.gate_boost, self.gate_detach = gate_target, gate_boost, gate_detach
        self.text_logit_scale, self.text_noise, self.uniform = text_logit_scale, text_noise, router == "uniform"

        L = self.text_encoder.context_length
        self.prompts = SoftPrompts([g[0] for g in template_groups], all_names, clip_model.token_embedding, L)
        hard_TAD = hard_features(self.text_encoder, [t for g in template_groups for t in g], all_names)
        self.register_buffer("prototypes_GAD", group_means(hard_TAD, template_groups), persistent=False)
        D = hard_TAD.shape[-1]
        self.correction = nn.Parameter(torch.zeros(1, D)) if correction else None
        self.router = nn.Linear(D, G)
        self.train()

    def text_features(self) -> torch.Tensor:
        """w_gc = normalise(TextEncoder([SOS] before_g name_c after_g [EOT]) + delta); G x A x D."""
        features_GAD = self.text_encoder(self.prompts.plan, self.prompts.vectors())
        if self.correction is not None:
            features_GAD = features_GAD + self.correction.to(features_GAD.dtype)
        return F.normalize(features_GAD, dim=-1)

    def route(self, image_BD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Router logits r and mixture weights pi of each picture; both B x G."""
        router_BG = linear(image_BD, self.router.weight, self.router.bias)
        if self.uniform:
            return router_BG, torch.full_like(router_BG, 1.0 / router_BG.shape[1])
        return router_BG, mixture_weights(router_BG, self.top_k)

    def gate_similarity(self, image_BD: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
        """s_g, what the gate's target is made from; B x G."""
        if self.gate_target == "label":
            return einsum("bd,gbd->bg", image_BD, self.prototypes_GAD[:, labels_B])
        return einsum("bd,gd->bg", image_BD, F.normalize(self.prototypes_GAD.mean(1), dim=-1))

    def losses(self, images_BCHW: torch.Tensor, labels_B: torch.Tensor) -> dict[str, torch.Tensor]:
        """The three losses, unweighted scalars "cls", "text" and "gate", and "logits_BC", "router_BG"."""
        image_BD = self.image_features(images_BCHW)
        text_GAD = self.text_features()
        router_BG, weights_BG = self.route(image_BD)
        scale = self.logit_scale.exp()
        logits_BC = mixed_logits(image_BD, text_GAD[:, : self.n_classes], weights_BG, scale)
        similarity_BG = self.gate_similarity(image_BD.detach() if self.gate_detach else image_BD, labels_B)
        text_scale = scale if isinstance(self.text_logit_scale, str) else self.text_logit_scale
        return {
            "cls": F.cross_entropy(logits_BC, labels_B),
            "text": text_to_text_loss(text_GAD, with_noise(self.prototypes_GAD, self.text_noise), text_scale),
            "gate": soft_cross_entropy(router_BG, gate_target(similarity_BG, self.top_k, self.gate_boost)),
            "logits_BC": logits_BC,
            "router_BG": router_BG,
        }

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Logits, B x C. In evaluation mode the text is encoded once and kept until train() or a change of weights."""
        learned = [p for p in (*self.prompts.parameters(), self.correction) if p is not None]
        text_GAD = self.kept(self.text_features, learned)
        image_BD = self.image_features(images_BCHW)
        weights_BG = self.route(image_BD)[1]
        return mixed_logits(image_BD, text_GAD[:, : self.n_classes], weights_BG, self.logit_scale.exp())


@TRAINER_REGISTRY.register()
class MoCoOp(PromptTrainer):
    """Trains MixtureCLIP."""

    KEY = "MOCOOP"
    TEST_SETTINGS = ("TOP_K", "ROUTER")

    def build_model(self) -> None:
        cfg = self.settings
        self.template_groups = cfg.TEMPLATE_GROUPS or template_groups(self.cfg.DATASET.NAME)
        text_names = self.all_classnames if cfg.TEXT_CLASSES == "all" else self.classnames
        scale = 1.0 if cfg.TEXT_LOGIT_SCALE is None else cfg.TEXT_LOGIT_SCALE
        self.model = MixtureCLIP(
            self.load_clip(),
            self.classnames,
            self.template_groups,
            text_classnames=text_names,
            top_k=cfg.TOP_K,
            correction=cfg.CORRECTION,
            train_visual_ln=cfg.TRAIN_VISUAL_LN,
            gate_target=cfg.GATE_TARGET,
            gate_boost=cfg.GATE_BOOST,
            gate_detach=cfg.GATE_DETACH,
            text_logit_scale=scale,
            text_noise=cfg.TEXT_NOISE,
            router=cfg.ROUTER,
            **self.encoder_options,
        )
        print(f"{len(self.template_groups)} soft prompts; the text loss scores {len(text_names)} class names")
        self.finish_model(slow=self.model.tuned, slow_lr=cfg.VISUAL_LN_LR_MULT)

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        if self.settings.TEXT_CLASSES not in ("all", "train"):
            raise ValueError(f'TRAINER.MOCOOP.TEXT_CLASSES is "{self.settings.TEXT_CLASSES}": use "all" or "train"')

    def compute_loss(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """L = L_cls + TEXT_LOSS_WEIGHT L_text + GATE_LOSS_WEIGHT L_gate, and what the log shows."""
        parts = self.model.losses(images, labels)
        loss = parts["cls"]
        loss = loss + self.settings.TEXT_LOSS_WEIGHT * parts["text"] + self.settings.GATE_LOSS_WEIGHT * parts["gate"]
        return loss, {f"loss_{name}": parts[name] for name in ("cls", "text", "gate")}

    def identity(self) -> dict:
        return super().identity() | {
            "template_groups": [list(group) for group in self.template_groups],
            "text_classes": self.settings.TEXT_CLASSES,
        }

    def adopt(self, identity: dict) -> None:
        """A checkpoint brings its own template groups; the target dataset's are never used with it."""
        if identity.get("template_groups", self.template_groups) != self.template_groups:
            self.settings.defrost()
            self.settings.TEMPLATE_GROUPS = identity["template_groups"]
            self.rebuild_model()


def add_config(cfg: CfgNode) -> None:
    """Declares MoCoOp's settings, with the authors' values, below cfg.TRAINER.MOCOOP."""
    PromptTrainer.add_config(cfg)
    declare(
        cfg.TRAINER,
        MOCOOP={
            "TEMPLATE_GROUPS": [],  # lists of templates; empty: configs/templates/template_groups.yaml by dataset
            "TOP_K": 2,  # experts per picture
            "CORRECTION": True,  # learn the vector delta
            "TRAIN_VISUAL_LN": True,  # train the visual transformer's ln_1, ln_2 (ViT only)
            "VISUAL_LN_LR_MULT": 0.1,
            "TEXT_LOSS_WEIGHT": 5.0,
            "GATE_LOSS_WEIGHT": 1.0,
            "GATE_TARGET": "label",  # or class_mean
            "GATE_BOOST": 10.0,
            "GATE_DETACH": False,
            "TEXT_LOGIT_SCALE": None,  # a number or clip; None is 1.0 (with a number here, yacs would refuse "clip")
            "TEXT_CLASSES": "all",  # class names in the text loss: all (base and new) or train
            "TEXT_NOISE": 0.0,
            "ROUTER": "learned",  # or uniform
            "PREC": "amp",  # fp32, fp16, amp, bf16
            "GRAD_CLIP": 1.0,
        },
    )
