"""Options of CoPrompt, with its authors' values."""

from dataclasses import dataclass

from ..options import PRECISIONS, Options, option


@dataclass(frozen=True)
class CoPromptOptions(Options):
    KEY = "COPROMPT"

    ctx_init: str = option(
        "a photo of a", "words whose first tokens start the context; empty: random vectors (std 0.02)"
    )
    prompt_depth: int | None = option(
        None,
        "blocks of both towers with prompts of their own; None: the authors' for the dataset (by_dataset.yaml)",
        least=1,
    )
    n_ctx: int | None = option(None, "prompt tokens of each tower; None: the authors' for the dataset", least=1)
    weight: float | None = option(
        None, "of the losses that hold features to CLIP's own; None: the authors' for the dataset", least=0
    )
    sentences: str = option(
        "",
        "file of sentences on each class, of a language model: JSON or yaml, class name -> list of them, as many for each; "
        "empty: CLIP's eighty templates (configs/templates/clip80.yaml)",
    )
    prec: str = option("fp16", "precision", among=PRECISIONS)
