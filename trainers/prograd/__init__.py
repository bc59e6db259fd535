"""ProGrad: prompt-aligned gradients (Zhu, Niu, Han, Wu, Zhang, ICCV 2023)."""

from ..options import HEADS, Method
from .options import ProGradOptions

METHODS = (
    Method("prograd", "ProGrad", "ProGradCLIP", options=ProGradOptions, heads=HEADS, place=34, templates=("TEMPLATE",)),
)
