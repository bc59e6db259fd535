"""MoCoOp: mixture-of-prompts learning (Du, Niu, Zhao, Frontiers in AI 2025, arXiv 2409.12011).

CLIP stays frozen. Each group of hard templates has one soft prompt; a router picks, per picture, the soft prompts whose
text features make its logits. docs/METHOD.md goes through the equations.

Shapes: B pictures, C training classes, A >= C classes of the text loss, G groups (soft prompts, experts), K experts of a
picture, N = B x K, D features, M prompt tokens, R rank, W width of the text or of the picture tower, H x W pixels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..cocoop.model import meta_network
from ..core.clip.adapted import AdaptedCLIP, Trained
from ..core.clip.backbones import Backbone
from ..core.clip.exportable import ExportableMixture
from ..core.clip.hard_features import check_groups, group_means, hard_features
from ..core.clip.losses import gate_target, soft_cross_entropy, text_to_text_loss, with_noise
from ..core.clip.mixture import chosen_experts, mixed_logits, mixture_weights
from ..core.clip.precision import einsum, linear, mean_angle
from ..core.clip.prompts import PromptPlan, SoftPrompts, clean_classname
from .experts import ExpertRows
from .options import MixtureOptions, MoCoOpOptions


class MixtureCLIP(AdaptedCLIP):
    """CLIP with a mixture of soft prompts and a router; needs neither Dassl nor a configuration.

    clip_model: a backbone or a CLIP of OpenAI's `clip`, used in place (its parameters are frozen but the visual
    LayerNorms). classnames: the C classes to tell apart, in label order.
    template_groups: G lists of hard templates, each with one `{}`; the first of a list starts its soft prompt.
    text_classnames: the A names that the text loss scores; they begin with `classnames`, which is the default.
    options: those of MixtureOptions, such as top_k=2.
    text_encoder: "fast" or "plain"; text_chunk: prompts encoded at a time, 0 by memory; text_memory: bytes for a chunk.

    Learned: prompts.before.<g>, prompts.after.<g> (tokens x W), correction (1 x D), router.weight (G x D),
    router.bias (G), image_encoder...ln_1/ln_2. Where options ask for them: expert_rows.<block> (G x M x W, or G x R x 4W),
    what each expert has in the picture tower; meta_net.linear1 (D -> D/16), meta_net.linear2 (D/16 -> W). Raises
    ValueError for groups, classes or options that make no sense, TypeError for a model that is no CLIP of these.
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
        self.prompts = SoftPrompts(first, all_names, embedding, vocabulary, self.options.layout == "released")
        hard_TAD = hard_features(self.text_encoder, [t for g in template_groups for t in g], all_names, vocabulary)
        self.register_buffer("prototypes_GAD", group_means(hard_TAD, template_groups), persistent=False)
        D = hard_TAD.shape[-1]
        self.correction = nn.Parameter(torch.zeros(1, D)) if self.options.correction else None
        self.router = nn.Linear(D, G)
        self.expert_rows = ExpertRows(self.backbone, G, self.options.visual_tokens, self.options.visual_rank)
        self.meta_net = meta_network(D, self.backbone.text_width) if self.options.conditional else None
        self.train()

    @property
    def from_features(self) -> bool:  # type: ignore[override]
        """Whether the picture tower is as CLIP has it."""
        return not self.expert_rows

    def text_features(self, plan: PromptPlan | None = None) -> torch.Tensor:
        """w_gc = normalise(TextEncoder([SOS] before_g name_c after_g [EOT]) + delta); G x A x D. plan: of other prompts."""
        return self._corrected(self.text_encoder.of_all(plan or self.prompts.plan, self.prompts.vectors()))

    def _corrected(self, features: torch.Tensor) -> torch.Tensor:
        if self.correction is not None:
            features = features + self.correction.to(features.dtype)
        return F.normalize(features, dim=-1)

    def tested_features(self) -> torch.Tensor:
        """What classes are tested by: w_gc, or normalise(w_gc + BLEND p_gc); G x C x D."""
        return self._blended(self.text_features()[:, : self.n_classes], self.prototypes_GAD[:, : self.n_classes])

    def _blended(self, soft: torch.Tensor, hard: torch.Tensor) -> torch.Tensor:
        blend = self.options.blend
        return F.normalize(soft + blend * hard, dim=-1) if blend else soft

    def conditional_features(self, experts_N: torch.Tensor, image_BD: torch.Tensor) -> torch.Tensor:
        """What pictures' own experts say of the classes, their vectors shifted by meta_net(f_b); N x C x D."""
        assert self.meta_net is not None
        plan, number_V, place_V = self.prompts.each_its_own(experts_N.tolist(), self.n_classes)
        vectors_VW = self.prompts.vectors()[number_V.to(image_BD.device)]
        shift_BW = self.meta_net(image_BD.to(vectors_VW.dtype))
        picture_V = place_V.to(image_BD.device) // (len(experts_N) // len(image_BD))
        features_NCD = self._corrected(self.text_encoder(plan.to(image_BD.device), vectors_VW + shift_BW[picture_V]))
        if self.training:
            return features_NCD
        return self._blended(features_NCD, self.prototypes_GAD[experts_N, : self.n_classes])

    def mixture(
        self, images_BCHW: torch.Tensor, image_BD: torch.Tensor, weights_BG: torch.Tensor, text_GCD: torch.Tensor | None
    ) -> torch.Tensor:
        """scale sum_g pi_g <f_g, w_gc>; B x C. f_g: the picture's feature by expert g, f where experts have text alone.
        text_GCD: w_gc, where they do not depend on the picture."""
        scale = self.logit_scale.exp()
        if text_GCD is not None and not self.expert_rows:
            return mixed_logits(image_BD, text_GCD, weights_BG, scale)
        K = self.top_k if self.options.router == "learned" else weights_BG.shape[1]
        experts_N, weights_NG = chosen_experts(weights_BG, K)
        image_ND = image_BD.repeat_interleave(K, dim=0)
        if self.expert_rows:
            own_ND = self.encoded(images_BCHW.repeat_interleave(K, dim=0), self.expert_rows.of(experts_N))
            image_ND = F.normalize(own_ND, dim=-1)
        if text_GCD is not None:
            logits_NC = mixed_logits(image_ND, text_GCD, weights_NG, scale)
        else:
            text_NCD = self.conditional_features(experts_N, image_BD)
            logits_NC = scale * weights_NG.sum(1, keepdim=True) * einsum("nd,ncd->nc", image_ND, text_NCD)
        return logits_NC.view(len(image_BD), K, -1).sum(1)

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

    def seen_hard_features(self) -> torch.Tensor:
        """The hard features as one step's text loss sees them, with a fresh draw of noise or without; G x A x D."""
        return with_noise(self.prototypes_GAD, self.options.text_noise)

    def losses(
        self, images_BCHW: torch.Tensor, labels_B: torch.Tensor, hard_GAD: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """The three losses, unweighted scalars "cls", "text" and "gate", and "logits_BC", "router_BG".

        hard_GAD: what seen_hard_features() gave for this step; drawn here where it is not given.
        """
        hard_GAD = self.seen_hard_features() if hard_GAD is None else hard_GAD
        image_BD = self.image_features(images_BCHW)
        scored_GAD = text_GAD = self.text_features()
        if self.options.layout == "released" and text_GAD.shape[1] > self.n_classes:
            scored_GAD = self.text_features(
                self.prompts.plan_with_stop
            )  # where there are names beyond the trained ones
        router_BG, weights_BG = self.route(image_BD)
        text_GCD = None if self.meta_net else text_GAD[:, : self.n_classes]
        logits_BC = self.mixture(images_BCHW, image_BD, weights_BG, text_GCD)
        o = self.options
        similarity_BG = self.gate_similarity(image_BD.detach() if o.gate_detach else image_BD, labels_B)
        fixed = 1.0 if o.text_logit_scale is None else o.text_logit_scale
        text_scale = self.logit_scale.exp() if fixed == "clip" else fixed
        return {
            "cls": F.cross_entropy(logits_BC, labels_B),
            "text": mean_angle(scored_GAD, hard_GAD)
            if o.text_loss == "anchor"
            else text_to_text_loss(scored_GAD, hard_GAD, text_scale),
            "gate": soft_cross_entropy(router_BG, gate_target(similarity_BG, self.top_k, o.gate_boost)),
            "logits_BC": logits_BC,
            "router_BG": router_BG,
        }

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Logits, B x C. In evaluation without gradients the text is encoded once, see weights_changed()."""
        return self.predict(images_BCHW)[0]

    def predict(self, images_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits, B x C, and mixture weights, B x G."""
        text_GCD = None if self.meta_net else self.cached_in_eval(self.tested_features)
        image_BD = self.image_features(images_BCHW)
        weights_BG = self.route(image_BD)[1]
        logits_BC = self.mixture(images_BCHW, image_BD, weights_BG, text_GCD)
        return self.with_head(logits_BC, image_BD), weights_BG

    @torch.no_grad()
    def exportable(self) -> ExportableMixture:
        if self.meta_net:
            raise ValueError(
                "a mixture with CONDITIONAL True cannot be exported, since every picture has prompts of its own: use "
                "predict.py or load_run"
            )
        class_GCD = self.logit_scale.exp() * self.cached_in_eval(self.tested_features)
        top_k = self.top_k if self.options.router == "learned" else 0
        visual = self.expert_rows.of() if self.expert_rows else None
        return ExportableMixture(self.backbone, class_GCD, self.router.weight, self.router.bias, top_k, visual)

    @classmethod
    def from_checkpoint(cls, backbone: Backbone, trained: Trained, classnames: Sequence[str]) -> "MixtureCLIP":
        options = MoCoOpOptions.of(trained.options).keywords(MixtureOptions)
        # one hard template a group where the others only bear on the losses
        many = None if options["blend"] else 1
        return cls(backbone, classnames, [group[:many] for group in trained.identity["template_groups"]], **options)
