"""One file per method. Importing this package makes `dassl` importable and current PyTorch acceptable to it."""

from .dassl_support import DASSL_IN_USE

__all__ = ["DASSL_IN_USE"]
