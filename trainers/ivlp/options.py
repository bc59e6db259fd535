"""Options of IVLP, with its authors' values."""

from dataclasses import dataclass

from ..options import PRECISIONS, Options, option


@dataclass(frozen=True)
class DeepOptions(Options):
    """How IvlpCLIP is made, under its authors' names."""

    n_ctx_text: int = option(2, "prompt tokens of the text tower", least=1)
    n_ctx_vision: int = option(2, "prompt tokens of the picture tower", least=1, unless={"prompt_depth_vision": (0,)})
    ctx_init: str = option(
        "a photo of a", "words whose first tokens start the text context; empty: random vectors (std 0.02)"
    )
    prompt_depth_text: int = option(12, "blocks of the text tower with prompts of their own", least=1)
    prompt_depth_vision: int = option(12, "blocks of the picture tower with prompts of their own; 0: none", least=0)

    def in_words(self) -> str:
        """What the log says of the prompts."""
        return (
            f"Prompts: {self.n_ctx_text} tokens before each of {self.prompt_depth_text} blocks of the text tower, "
            f"{self.n_ctx_vision} of {self.prompt_depth_vision} of the picture tower"
        )


@dataclass(frozen=True)
class IvlpOptions(DeepOptions):
    KEY = "IVLP"

    prec: str = option("fp16", "precision", among=PRECISIONS)
