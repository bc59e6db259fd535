"""PromptSRC: self-regulating prompts (Khattak et al., ICCV 2023)."""

from ..options import HEADS, Method
from .options import PromptSrcOptions

METHODS = (Method("promptsrc", "PromptSRC", "PromptSrcCLIP", options=PromptSrcOptions, heads=HEADS, place=46),)
