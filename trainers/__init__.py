"""One folder for each method; core/ is what they share. Importing this package makes `dassl` importable where it or compat/
is there."""

from typing import TYPE_CHECKING, Any

try:
    from .core.settings.dassl_support import DASSL_IN_USE
except ModuleNotFoundError:  # models and load_run need none
    DASSL_IN_USE = ""

if TYPE_CHECKING:
    from .core.inference import TrainedModel, load_run

__all__ = ["DASSL_IN_USE", "TrainedModel", "load_run"]


def __getattr__(name: str) -> Any:
    if name in ("TrainedModel", "load_run"):  # imports torch
        from .core import inference as use

        return getattr(use, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
