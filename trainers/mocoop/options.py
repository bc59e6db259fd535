"""Options of MoCoOp."""

from dataclasses import dataclass

from ..options import PRECISIONS, Options, option


@dataclass(frozen=True)
class MixtureOptions(Options):
    """How MixtureCLIP is made."""

    top_k: int = option(2, "experts per picture, at most as many as there are", least=1, needs={"router": ("learned",)})
    correction: bool = option(True, "learn LASP's vector delta, shared by all prompts")
    train_visual_ln: bool = option(True, "train ln_1 and ln_2 of a visual transformer (a ResNet has none)")
    gate_target: str = option(
        "label",
        "what the router learns: <f, p_gy>, or <f, mean over classes of p_g>",
        among=("label", "class_mean"),
        unless={"gate_loss_weight": (0.0,)},
    )
    gate_boost: float = option(
        10.0, "added to the top_k largest in the gate's target", unless={"gate_loss_weight": (0.0,)}
    )
    gate_detach: bool = option(False, "stop gradients through the gate's target", unless={"gate_loss_weight": (0.0,)})
    text_loss: str = option(
        "contrastive",
        "soft prompts find their class among their group's hard ones; or anchor: 1 - cos to the hard one, as in KgCoOp",
        among=("contrastive", "anchor"),
        unless={"text_loss_weight": (0.0,)},
    )
    text_logit_scale: float | str | None = option(
        None,
        "of the contrastive text loss; clip: exp(logit_scale); None: 1.0, as in the authors' code",
        among=("clip",),
        needs={"text_loss": ("contrastive",)},
        unless={"text_loss_weight": (0.0,)},
    )
    text_noise: float = option(
        0.0, "sigma of LASP's noise on the hard features", least=0, unless={"text_loss_weight": (0.0,)}
    )
    layout: str = option(
        "sentence",
        "of soft prompts: the template's own tokens, or as the authors' code was released (counted in words, no full stop)",
        among=("sentence", "released"),
    )
    blend: float = option(0.0, "how much of its group's hard feature is added to a soft one in testing", least=0)
    router: str = option("learned", "uniform: every expert counts alike, for an ablation", among=("learned", "uniform"))
    visual_tokens: list[int] = option(
        [],
        "prompt tokens of each expert before each of the first blocks of the picture tower, such as [2, 2, 2]; 0: those of "
        "the block before stay; empty: experts have text alone",
        least=0,
        needs={"visual_rank": (0,)},
    )
    visual_rank: int = option(
        0,
        "rank of what each expert adds to the queries, keys and values of all blocks of the picture tower; 0: nothing",
        least=0,
        needs={"visual_tokens": ([],)},
    )
    conditional: bool = option(False, "each picture shifts the soft prompts of its experts, by CoCoOp's network")


@dataclass(frozen=True)
class MoCoOpOptions(MixtureOptions):
    """MoCoOp's settings, with the authors' values."""

    KEY = "MOCOOP"

    template_groups: list[list[str]] = option([], "empty: configs/templates/template_groups.yaml, by dataset")
    visual_ln_lr_mult: float = option(
        0.1, "times the learning rate, for the visual LayerNorms", least=0, needs={"train_visual_ln": (True,)}
    )
    text_loss_weight: float = option(5.0, "of L_text", least=0)
    gate_loss_weight: float = option(1.0, "of L_gate", least=0)
    text_classes: str = option("all", "class names in the text loss: base and new, or train", among=("all", "train"))
    prec: str = option("amp", "precision", among=PRECISIONS)
    grad_clip: float | None = option(
        None,
        "largest norm of the gradients, 0 for any; None: 1.0 under PREC amp, else any, as in the authors' code",
        least=0,
    )
