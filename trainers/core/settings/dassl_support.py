"""Finds Dassl, or its replacement in compat/, and patches Dassl from outside so that it runs on current PyTorch.

Dassl's last commit (c61a1b5) hands `verbose` to schedulers that lost that argument in torch 2.7, imports wilds (and pandas)
whether or not they are used, and says np.int. Its files are left as they are.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ...paths import ROOT

COMPAT = ROOT / "compat"


def _find() -> Path:
    """The package's folder; compat/ goes to the end of the path where nothing else is called dassl."""
    spec = importlib.util.find_spec("dassl")
    if str(COMPAT) not in sys.path and (spec is None or spec.origin is None):  # or a mere folder of that name
        sys.path.append(str(COMPAT))
        importlib.invalidate_caches()
        spec = importlib.util.find_spec("dassl")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"Dassl is not installed and {COMPAT} is missing: see docs/PLUGIN.md")
    return Path(spec.origin).parent


def _mend_imports() -> None:
    """What an installed Dassl needs before it is imported."""
    import numpy as np

    if not hasattr(np, "int"):
        np.int = int  # type: ignore[attr-defined]
    if any(importlib.util.find_spec(name) is None for name in ("wilds", "pandas")):
        sys.modules["dassl.data.datasets.dg.wilds"] = ModuleType("wilds")  # its datasets are then not registered


def mend_schedulers() -> None:
    """What an installed Dassl needs before it builds a schedule; apart from the rest, since it imports torch."""
    if not DASSL_IS_INSTALLED:
        return
    theirs: Any = importlib.import_module("dassl.optim.lr_scheduler")
    from torch.optim.lr_scheduler import LRScheduler

    class WithoutVerbose(LRScheduler):
        def __init__(self, optimizer: Any, last_epoch: int = -1, verbose: bool = False) -> None:
            super().__init__(optimizer, last_epoch)

    theirs._BaseWarmupScheduler.__bases__ = (WithoutVerbose,)


_FOUND = _find()
DASSL_IS_INSTALLED = not _FOUND.is_relative_to(COMPAT)
DASSL_IN_USE = (
    f"the installed Dassl at {_FOUND}" if DASSL_IS_INSTALLED else "compat/dassl (Dassl itself is not installed)"
)
if DASSL_IS_INSTALLED:
    _mend_imports()
