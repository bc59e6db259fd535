"""Its model is CoOp's."""

from ..coop.model import CoOpCLIP

__all__ = ["CoOpCLIP"]
