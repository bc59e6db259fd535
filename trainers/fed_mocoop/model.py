"""Its model is MoCoOp's."""

from ..mocoop.model import MixtureCLIP

__all__ = ["MixtureCLIP"]
