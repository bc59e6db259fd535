"""KgCoOp: knowledge-guided context optimisation (Yao, Zhang, Xu, CVPR 2023)."""

from ..options import HEADS, Method
from .options import KgCoOpOptions

METHODS = (
    Method("kgcoop", "KgCoOp", "KgCoOpCLIP", options=KgCoOpOptions, heads=HEADS, place=32, templates=("TEMPLATE",)),
)
