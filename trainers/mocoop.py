"""MoCoOp: mixture-of-prompts learning (Du, Niu, Zhao, Frontiers in AI 2025, arXiv 2409.12011).

CLIP stays frozen. Each group of hard templates has one soft prompt; a router picks, per picture, the soft prompts whose
text features make its logits. docs/METHOD.md goes through the equations.

Shapes: B pictures, C training classes, A >= C classes of the text loss, G groups (soft prompts, experts), D features,
H x W pixels.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from dassl.engine import TRAINER_REGISTRY
from torch import nn
from torch.nn import functional as F
from yacs.config import CfgNode

from .components.features import check_groups, group_means, hard_features
from .components.losses import accuracy, gate_target, soft_cross_entropy, text_to_text_loss, with_noise
from .components.mixture import mixed_logits, mixture_weights
from .components.model import AdaptedCLIP
from .components.precision import einsum, linear
from .components.prompts import SoftPrompts, clean_classname
from .core.settings import PRECISIONS, Options, option
from .core.templates import template_groups
from .core.trainer import PromptTrainer


@dataclass(frozen=True)
class MixtureOptions(Options):
    """How MixtureCLIP is made."""

    top_k: int = option(2, "experts per picture, at most as many as there are", least=1)
    correction: bool = option(True, "learn LASP's vector delta, shared by all prompts")
    train_visual_ln: bool = option(True, "train ln_1 and ln_2 of a visual transformer (a ResNet has none)")
    gate_target: str = option(
        "label", "what the router learns: <f, p_gy>, or <f, mean over classes of p_g>", among=("label", "class_mean")
    )
    gate_boost: float = option(10.0, "added to the top_k largest in the gate's target")
    gate_detach: bool = option(False, "stop gradients through the gate's target")
    text_logit_scale: float | str | None = option(
        None, "of the text loss; clip: exp(logit_scale); None: 1.0, as in the authors' code", among=("clip",)
    )
    text_noise: float = option(0.0, "sigma of LASP's noise on the hard features", least=0)
    router: str = option("learned", "uniform: every expert counts alike, for an ablation", among=("learned", "uniform"))


@dataclass(frozen=True)
class MoCoOpOptions(MixtureOptions):
    """MoCoOp's settings, with the authors' values."""

    KEY = "MOCOOP"

    template_groups: list[list[str]] = option([], "empty: configs/templates/template_groups.yaml, by dataset")
    visual_ln_lr_mult: float = option(0.1, "times the learning rate, for the visual LayerNorms", least=0)
    text_loss_weight: float = option(5.0, "of L_text", least=0)
    gate_loss_weight: float = option(1.0, "of L_gate", least=0)
    text_classes: str = option("all", "class names in the text loss: base and new, or train", among=("all", "train"))
    prec: str = option("amp", "precision", among=PRECISIONS)
    grad_clip: float | None = option(
        None,
        "largest norm of the gradients, 0 for any; None: 1.0 under PREC amp, else any, as in the authors' code",
        least=0,
    )


class MixtureCLIP(AdaptedCLIP):
    """CLIP with a mixture of soft prompts and a router; needs neither Dassl nor a configuration.

    clip_model: a backbone or a CLIP of OpenAI's `clip`, used in place (its parameters are frozen but the visual
    LayerNorms). classnames: the C classes to tell apart, in label order.
    template_groups: G lists of hard templates, each with one `{}`; the first of a list starts its soft prompt.
    text_classnames: the A names that the text loss scores; they begin with `classnames`, which is the default.
    options: those of MixtureOptions, such as top_k=2.
    text_encoder: "fast" or "plain"; text_chunk: prompts encoded at a time, 0 by memory; text_memory: bytes for a chunk.
    counted_in_words: prompts as in checkpoints of the authors' code, see SoftPrompts.

    Learned: prompts.before.<g>, prompts.after.<g> (tokens x W), correction (1 x D), router.weight (G x D),
    router.bias (G), image_encoder...ln_1/ln_2. Raises ValueError for groups, classes or options that make no sense,
    TypeError for a model that is no CLIP of these.
    """

    prototypes_GAD: torch.Tensor

    def __init__(
        self,
        clip_model: Any,
        classnames: Sequence[str],
        template_groups: Sequence[Sequence[str]],
        text_classnames: Sequence[str] | None = None,
        *,
        text_encoder: str = "fast",
        text_chunk: int = 0,
        text_memory: int = 0,
        counted_in_words: bool = False,
        **options: Any,
    ) -> None:
        self_options = MixtureOptions(**options)
        super().__init__(clip_model, self_options.train_visual_ln, text_encoder, text_chunk, text_memory)
        self.options = self_options
        check_groups(template_groups)
        names = [clean_classname(name) for name in classnames]
        all_names = [clean_classname(name) for name in text_classnames or classnames]
        if all_names[: len(names)] != names:
            raise ValueError("text_classnames must begin with classnames, in the same order")
        G = len(template_groups)
        self.n_classes, self.top_k = len(names), min(self.options.top_k, G)

        embedding, vocabulary = self.backbone.token_embedding, self.vocabulary
        first = [group[0] for group in template_groups]
        self.prompts = SoftPrompts(first, all_names, embedding, vocabulary, counted_in_words)
        hard_TAD = hard_features(self.text_encoder, [t for g in template_groups for t in g], all_names, vocabulary)
        self.register_buffer("prototypes_GAD", group_means(hard_TAD, template_groups), persistent=False)
        D = hard_TAD.shape[-1]
        self.correction = nn.Parameter(torch.zeros(1, D)) if self.options.correction else None
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
        if self.options.router == "uniform":
            return router_BG, torch.full_like(router_BG, 1.0 / router_BG.shape[1])
        return router_BG, mixture_weights(router_BG, self.top_k)

    def gate_similarity(self, image_BD: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
        """s_g, what the gate's target is made from; B x G."""
        if self.options.gate_target == "label":
            return einsum("bd,gbd->bg", image_BD, self.prototypes_GAD[:, labels_B])
        return einsum("bd,gd->bg", image_BD, F.normalize(self.prototypes_GAD.mean(1), dim=-1))

    def losses(self, images_BCHW: torch.Tensor, labels_B: torch.Tensor) -> dict[str, torch.Tensor]:
        """The three losses, unweighted scalars "cls", "text" and "gate", and "logits_BC", "router_BG"."""
        image_BD = self.image_features(images_BCHW)
        text_GAD = self.text_features()
        router_BG, weights_BG = self.route(image_BD)
        scale = self.logit_scale.exp()
        logits_BC = mixed_logits(image_BD, text_GAD[:, : self.n_classes], weights_BG, scale)
        o = self.options
        similarity_BG = self.gate_similarity(image_BD.detach() if o.gate_detach else image_BD, labels_B)
        text_scale = (
            scale if o.text_logit_scale == "clip" else 1.0 if o.text_logit_scale is None else o.text_logit_scale
        )
        return {
            "cls": F.cross_entropy(logits_BC, labels_B),
            "text": text_to_text_loss(text_GAD, with_noise(self.prototypes_GAD, o.text_noise), text_scale),
            "gate": soft_cross_entropy(router_BG, gate_target(similarity_BG, self.top_k, o.gate_boost)),
            "logits_BC": logits_BC,
            "router_BG": router_BG,
        }

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Logits, B x C. In evaluation without gradients the text is encoded once, see weights_changed()."""
        text_GAD = self.kept(self.text_features)
        image_BD = self.image_features(images_BCHW)
        weights_BG = self.route(image_BD)[1]
        return mixed_logits(image_BD, text_GAD[:, : self.n_classes], weights_BG, self.logit_scale.exp())


@TRAINER_REGISTRY.register()
class MoCoOp(PromptTrainer):
    """Trains MixtureCLIP."""

    OPTIONS = MoCoOpOptions
    TEST_SETTINGS = ("TOP_K", "ROUTER")
    counted_in_words = False  # as in the authors' own checkpoints

    @classmethod
    def templates_of(cls, cfg: CfgNode) -> list:
        return cfg.TRAINER.MOCOOP.TEMPLATE_GROUPS or template_groups(cfg.DATASET.NAME)

    def build_model(self) -> None:
        o = self.options
        self.template_groups = o.template_groups or self.templates_of(self.cfg)
        text_names = self.all_classnames if o.text_classes == "all" else self.classnames
        self.model = MixtureCLIP(
            self.load_clip(), self.classnames, self.template_groups, text_names, **o.keywords(MixtureOptions),
            counted_in_words=self.counted_in_words, **self.encoder_options,
        )  # fmt: skip
        print(f"{len(self.template_groups)} soft prompts; the text loss scores {len(text_names)} class names")
        for group in self.template_groups:
            print(f"  {' | '.join(group)}")
        self.finish_model(slower=self.model.tuned, times=o.visual_ln_lr_mult)

    def compute_loss(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """L = L_cls + TEXT_LOSS_WEIGHT L_text + GATE_LOSS_WEIGHT L_gate, and what the log shows."""
        parts = self.model.losses(images, labels)
        loss = parts["cls"]
        loss = loss + self.options.text_loss_weight * parts["text"] + self.options.gate_loss_weight * parts["gate"]
        shown = {f"loss_{name}": parts[name] for name in ("cls", "text", "gate")}
        return loss, shown | {"acc": accuracy(parts["logits_BC"], labels)}

    def identity(self) -> dict:
        return super().identity() | {
            "template_groups": [list(group) for group in self.template_groups],
            "text_classes": self.options.text_classes,
        }

    def adopt(self, identity: dict, tensors: dict[str, torch.Tensor]) -> None:
        """A checkpoint brings its own template groups; the target dataset's are never used with it.

        One of the authors' code brings none: the dataset's are theirs, read in their way.
        """
        in_words = "prompt_learner.gate.weight" in tensors
        groups = identity.get("template_groups", self.template_groups)
        if groups != self.template_groups or in_words != self.counted_in_words:
            self.options = dataclasses.replace(self.options, template_groups=groups)
            self.counted_in_words = in_words
            self.rebuild_model()

    def convert_state(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The authors' code names prompts ctx_before_<g> and ctx_after_<g>, the router gate, and stores the whole CLIP."""
        if "prompt_learner.gate.weight" not in state:
            return state
        names = {"w": "correction", "gate.weight": "router.weight", "gate.bias": "router.bias"}
        for g in range(len(self.template_groups)):
            names |= {f"ctx_before_{g}": f"prompts.before.{g}", f"ctx_after_{g}": f"prompts.after.{g}"}
        ours = {names[k]: v for k, v in _without("prompt_learner.", state).items() if k in names}
        return ours | {k: v for k, v in state.items() if k in self.model.learned()}


def _without(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


add_config = MoCoOpOptions.add_config
