"""Options of LP++, with its authors' values."""

from dataclasses import dataclass

from ..core.heads.options import HeadOptions
from ..options import option


@dataclass(frozen=True)
class LPPlusPlusOptions(HeadOptions):
    KEY = "LPPLUSPLUS"

    views: int = option(
        1, "augmented views of each training picture (INPUT.TRANSFORMS); 0: the picture as it is tested", least=0
    )
    steps: int = option(300, "over all pictures together", least=1)
