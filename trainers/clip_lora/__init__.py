"""CLIP-LoRA: low-rank additions to the attention of both towers (Zanella, Ben Ayed, CVPR Workshops 2024)."""

from ..options import Method
from .options import ClipLoraOptions

METHODS = (
    Method("clip_lora", "CLIPLoRA", "LoraCLIP", "CLIP-LoRA", ClipLoraOptions, place=45, templates=("TEMPLATE",)),
)
