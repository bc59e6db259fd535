"""IVLP: independent prompts in both towers (Rasheed et al., CVPR 2023; Khattak et al., CVPR 2023, as a baseline)."""

from ..options import HEADS, Method
from .options import IvlpOptions

METHODS = (Method("ivlp", "IVLP", "IvlpCLIP", options=IvlpOptions, heads=HEADS, place=42),)
