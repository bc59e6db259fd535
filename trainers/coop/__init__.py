"""CoOp: context optimisation (Zhou, Yang, Loy, Liu, IJCV 2022)."""

from ..options import HEADS, Method
from .options import CoOpOptions

METHODS = (Method("coop", "CoOp", "CoOpCLIP", options=CoOpOptions, heads=HEADS, place=30),)
