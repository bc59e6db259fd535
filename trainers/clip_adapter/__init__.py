"""CLIP-Adapter: a bottleneck behind the picture tower (Gao et al., IJCV 2024)."""

from ..options import HEADS, Method
from .options import ClipAdapterOptions

METHODS = (
    Method(
        "clip_adapter",
        "CLIPAdapter",
        "AdapterCLIP",
        "CLIP-Adapter",
        ClipAdapterOptions,
        heads=HEADS,
        place=25,
        templates=("TEMPLATE",),
    ),
)
