"""MoCoOp+ is MoCoOp's model."""

from ..mocoop.model import MixtureCLIP

__all__ = ["MixtureCLIP"]
