"""2SFS: LayerNorms of both towers first, then a classifier that starts from the text (Farina et al., CVPR 2025)."""

from ..options import Method
from .options import TwoSfsOptions

METHODS = (Method("2sfs", "TwoSFS", "TwoStageCLIP", "2SFS", TwoSfsOptions, place=47, templates=("TEMPLATE",)),)
