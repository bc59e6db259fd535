"""Options of DPL, with its authors' values."""

from dataclasses import dataclass

from ..options import PRECISIONS, Options, option


@dataclass(frozen=True)
class DplModelOptions(Options):
    """How DplCLIP is made."""

    n_ctx_text: int = option(6, "longest context of a block of the text tower", least=0)
    n_ctx_vision: int = option(6, "longest context of a block of the picture tower", least=0)
    lengths: list[list[int]] = option(
        [],
        "context lengths of each block, of the picture tower and of the text tower, or a file with them, as a search "
        "writes it (lengths.yaml); empty: they are searched for",
    )


@dataclass(frozen=True)
class DplOptions(DplModelOptions):
    KEY = "DPL"

    text: str = option(
        "ensemble",
        "what the network found reads: the mean of the embeddings of sixty templates, token by token, or a photo of a {}.",
        among=("ensemble", "template"),
    )
    search_epochs: int = option(
        80, "epochs of the search; those of OPTIM.MAX_EPOCH follow", least=1, needs={"lengths": ([],)}
    )
    search_batch: int = option(16, "validation pictures of each of its steps", least=1, needs={"lengths": ([],)})
    search_lr: float = option(
        0.0035, "rate of the weights of lengths, of Adam with betas 0.5 and 0.999", above=0, needs={"lengths": ([],)}
    )
    distill_weight: float = option(
        0.0, "of the distance to zero-shot CLIP's predictions; the paper has it, its code multiplies it by 0", least=0
    )
    prec: str = option("fp32", "precision", among=PRECISIONS)
