"""One file per method. Importing this package makes `dassl` importable; core/ runs methods, components/ is their stuff."""

from .core.dassl_support import DASSL_IN_USE

__all__ = ["DASSL_IN_USE"]
