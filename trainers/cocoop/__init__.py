"""CoCoOp: conditional context optimisation (Zhou, Yang, Loy, Liu, CVPR 2022)."""

from ..options import HEADS, Method
from .options import CoCoOpOptions

METHODS = (Method("cocoop", "CoCoOp", "CoCoOpCLIP", options=CoCoOpOptions, heads=HEADS, place=40),)
