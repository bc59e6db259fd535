"""LASP: language-aware soft prompting (Bulat, Tzimiropoulos, CVPR 2023)."""

from ..options import HEADS, Method
from .options import LaspOptions

METHODS = (Method("lasp", "LASP", "LaspCLIP", options=LaspOptions, heads=HEADS, place=50),)
