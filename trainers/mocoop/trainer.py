"""MoCoOp: mixture-of-prompts learning (Du, Niu, Zhao, Frontiers in AI 2025, arXiv 2409.12011).

CLIP stays frozen. Each group of hard templates has one soft prompt; a router picks, per picture, the soft prompts whose
text features make its logits. docs/METHOD.md goes through the equations.

Shapes: B pictures, C training classes, A >= C classes of the text loss, G groups (soft prompts, experts), D features,
H x W pixels.
"""

import dataclasses

import torch
from yacs.config import CfgNode

from ..core.clip.losses import accuracy
from ..core.settings.configure import declaring
from ..core.settings.templates import template_groups
from ..core.training.trainer import PromptTrainer, register
from .model import MixtureCLIP
from .options import MixtureOptions, MoCoOpOptions


@register
class MoCoOp(PromptTrainer):
    """Trains MixtureCLIP."""

    TEST_SETTINGS = ("TOP_K", "ROUTER", "LAYOUT", "BLEND")

    @classmethod
    def templates_of(cls, cfg: CfgNode) -> list:
        return cfg.TRAINER[cls.method().options.KEY].TEMPLATE_GROUPS or template_groups(cfg)

    def build_model(self) -> None:
        o = self.options
        self.template_groups = o.template_groups or self.templates_of(self.cfg)
        # with no text loss only a gate that averages over names looks at more of them
        reads_names = o.text_loss_weight or o.gate_target == "class_mean"
        self.text_classes = o.text_classes if reads_names else "train"
        text_names = self.all_classnames if self.text_classes == "all" else self.classnames
        self.model = MixtureCLIP(
            self.load_clip(), self.classnames, self.template_groups, text_names, **o.keywords(MixtureOptions),
            **self.encoder_options,
        )  # fmt: skip
        print(f"{len(self.template_groups)} soft prompts; the text loss scores {len(text_names)} class names")
        for group in self.template_groups:
            print(f"  {' | '.join(group)}")
        self.may_record = not o.conditional  # each step's prompts are laid out by its pictures' experts
        self.finish_model(slower=self.model.tuned, times=o.visual_ln_lr_mult)

    @classmethod
    def head_templates_of(cls, cfg: CfgNode) -> list[list[str]]:
        return cls.templates_of(cfg)

    def head_groups(self) -> list[list[str]]:
        return self.template_groups

    def drawn(self) -> tuple[torch.Tensor, ...]:
        return (self.model.seen_hard_features(),)

    def compute_loss(
        self, images: torch.Tensor, labels: torch.Tensor, *drawn: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """L = L_cls + TEXT_LOSS_WEIGHT L_text + GATE_LOSS_WEIGHT L_gate, and what the log shows."""
        parts = self.model.losses(images, labels, *drawn)
        loss = parts["cls"]
        loss = loss + self.options.text_loss_weight * parts["text"] + self.options.gate_loss_weight * parts["gate"]
        shown = {f"loss_{name}": parts[name] for name in ("cls", "text", "gate")}
        return loss, shown | {"acc": accuracy(parts["logits_BC"], labels)}

    def identity(self) -> dict:
        return super().identity() | {
            "template_groups": [list(group) for group in self.template_groups],
            "text_classes": self.text_classes,
        }

    def adopt(self, identity: dict, tensors: dict[str, torch.Tensor]) -> None:
        """A checkpoint brings its own template groups; the target dataset's are never used with it.

        One of the authors' code brings none: the dataset's are theirs, read in their way.
        """
        layout = "released" if "prompt_learner.gate.weight" in tensors else self.options.layout
        groups = identity.get("template_groups", self.template_groups)
        if groups != self.template_groups or layout != self.options.layout:
            self.options = dataclasses.replace(self.options, template_groups=groups, layout=layout)
            self.rebuild_model()

    def convert_state(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The authors' code names prompts ctx_before_<g> and ctx_after_<g>, the router gate, and stores the whole CLIP."""
        if "prompt_learner.gate.weight" not in state:
            return state
        names = {"w": "correction", "gate.weight": "router.weight", "gate.bias": "router.bias"}
        for g in range(len(self.template_groups)):
            names |= {f"ctx_before_{g}": f"prompts.before.{g}", f"ctx_after_{g}": f"prompts.after.{g}"}
        ours = {names[k]: v for k, v in _without("prompt_learner.", state).items() if k in names}
        return ours | {k: v for k, v in state.items() if k in self.model.trainable()}


def _without(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


add_config = declaring(MoCoOpOptions)
