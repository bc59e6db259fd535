"""Options of LASP."""

from dataclasses import dataclass

from ..options import PRECISIONS, Options, option


@dataclass(frozen=True)
class LaspModelOptions(Options):
    """How LaspCLIP is made, under its authors' names."""

    n_ctx: int = option(4, "context tokens, where CTX_INIT is empty", least=1, needs={"ctx_init": ("",)})
    ctx_init: str = option("a photo of a", "words to start from")
    ctx_count: str = option(
        "tokens", "what of CTX_INIT is learned, see CoOp's", among=("tokens", "words"), unless={"ctx_init": ("",)}
    )
    n_groups: int = option(1, "soft prompts, each with an even share of the templates, logits averaged", least=1)
    enable_correction: bool = option(True, "learn the vector delta")
    train_w: bool = option(True, "train it; one that is not trained stays zero", needs={"enable_correction": (True,)})
    finetune_vit_ln: bool = option(True, "train ln_1 and ln_2 of a visual transformer (a ResNet has none)")
    text_noise: float = option(
        0.05, "sigma of the noise on the hard features, drawn with probability 0.5", least=0, needs={"enable": (True,)},
        unless={"lasp_loss_weight": (0.0,)},
    )  # fmt: skip
    text_loss_over: str = option(
        "soft",
        "softmax of the text loss: hard features choose among soft prompts (LASP's code), or soft prompts among hard "
        "features (its abstract)",
        among=("soft", "hard"),
        needs={"enable": (True,)},
        unless={"lasp_loss_weight": (0.0,)},
    )


@dataclass(frozen=True)
class LaspOptions(LaspModelOptions):
    """LASP's settings."""

    KEY = "LASP"

    enable: bool = option(True, "the text loss")
    lasp_prompts: list[str] = option(
        [], "hard templates; empty: configs/templates/lasp.yaml", needs={"enable": (True,)},
        unless={"lasp_loss_weight": (0.0,)},
    )  # fmt: skip
    lasp_loss_weight: float = option(5.0, "of the text loss", least=0, needs={"enable": (True,)})
    text_classes: str = option(
        "all", "class names in the text loss: base and new, or train", among=("all", "train"), needs={"enable": (True,)},
        unless={"lasp_loss_weight": (0.0,)},
    )  # fmt: skip
    prec: str = option("amp", "precision", among=PRECISIONS)
    grad_clip: float | None = option(
        None, "largest norm of the gradients, 0 for any; None: 1.0 under PREC amp, else any, as in LASP's code", least=0
    )
    enable_implicit_op: str = option("sum", "LASP's; its code does nothing with it")
    pretrained_prompts_dir: str | None = option(None, "LASP's; its code does nothing with it")
