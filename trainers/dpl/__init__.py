"""DPL: differentiable prompt learning, which searches how many context vectors each block reads (Huang et al., IJCAI
2025)."""

from ..options import Method
from .options import DplOptions

METHODS = (Method("dpl", "DPL", "DplCLIP", options=DplOptions, chooses_on_validation=True, place=52),)
