"""Options of CLIP-Adapter, with its authors' values."""

from dataclasses import dataclass

from ..options import PRECISIONS, Options, option


@dataclass(frozen=True)
class AdapterOptions(Options):
    """How AdapterCLIP is made."""

    ratio: float = option(0.2, "of the adapter's features in the blend with CLIP's", least=0, most=1)
    reduction: int = option(4, "how many times narrower the adapter's middle is than the features", least=1)


@dataclass(frozen=True)
class ClipAdapterOptions(AdapterOptions):
    KEY = "CLIPADAPTER"

    prec: str = option("fp32", "precision", among=PRECISIONS)
