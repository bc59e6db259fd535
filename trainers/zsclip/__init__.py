"""Zero-shot CLIP, and mixtures of templates of which nothing is learned."""

from ..options import Method
from .options import HardMixtureOptions

METHODS = (
    Method(
        "zsclip", "ZeroshotCLIP", "HardPromptCLIP", "Zero-shot CLIP", takes_steps=False, looks_at=("test",), place=10,
        templates=("TEMPLATE",),
    ),
    Method(
        "zsclip2", "ZeroshotCLIP2", "HardPromptCLIP", "Zero-shot CLIP, 8 templates", takes_steps=False, looks_at=("test",),
        place=11, templates=("TEMPLATE",), recipes_of="ZeroshotCLIP",
    ),
    Method(
        "zsclip_head", "ZeroshotHead", "HardPromptCLIP", "Zero-shot CLIP + head", takes_steps=False,
        looks_at=("train", "test"), heads=("text_means",), place=13, templates=("TEMPLATE",), recipes_of="ZeroshotCLIP",
    ),
    Method(
        "hard_mixture", "HardMixture", "HardMixtureCLIP", options=HardMixtureOptions, takes_steps=False, looks_at=("test",),
        place=12, templates=("TEMPLATE_GROUPS",), recipes_of="ZeroshotCLIP",
    ),
)  # fmt: skip
