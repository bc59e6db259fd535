"""Options of PromptSRC, with its authors' values."""

from dataclasses import dataclass

from ..ivlp.options import DeepOptions
from ..options import PRECISIONS, option


@dataclass(frozen=True)
class PromptSrcOptions(DeepOptions):
    KEY = "PROMPTSRC"

    n_ctx_text: int = option(4, "prompt tokens of the text tower", least=1)
    n_ctx_vision: int = option(4, "prompt tokens of the picture tower", least=1, unless={"prompt_depth_vision": (0,)})
    prompt_depth_text: int = option(9, "blocks of the text tower with prompts of their own", least=1)
    prompt_depth_vision: int = option(9, "blocks of the picture tower with prompts of their own; 0: none", least=0)
    text_loss_weight: float = option(25.0, "of the distance between text features", least=0)
    image_loss_weight: float = option(10.0, "of the distance between image features", least=0)
    logit_loss_weight: float = option(
        1.0, "of the divergence between predictions; the authors' code has no such weight", least=0
    )
    gpa_mean: float = option(15.0, "epoch around which weights are averaged")
    gpa_std: float = option(1.0, "width of the average, in epochs", above=0)
    prec: str = option("fp16", "precision", among=PRECISIONS)
