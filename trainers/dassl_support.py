"""Finds Dassl, or its stand-in in compat/, and mends from outside what keeps Dassl from running on current PyTorch.

Dassl's last commit (c61a1b5) hands `verbose` to schedulers that lost that argument in torch 2.7, imports wilds (and pandas)
whether or not they are used, and says np.int. Its files are left as they are.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

COMPAT = Path(__file__).resolve().parent.parent / "compat"


def _mend_installed_dassl() -> None:
    import numpy as np

    if not hasattr(np, "int"):
        np.int = int  # type: ignore[attr-defined]
    if any(importlib.util.find_spec(name) is None for name in ("wilds", "pandas")):
        sys.modules["dassl.data.datasets.dg.wilds"] = ModuleType("wilds")  # its datasets are then not registered
    theirs: Any = importlib.import_module("dassl.optim.lr_scheduler")
    from torch.optim.lr_scheduler import LRScheduler

    class WithoutVerbose(LRScheduler):
        def __init__(self, optimizer: Any, last_epoch: int = -1, verbose: bool = False) -> None:
            super().__init__(optimizer, last_epoch)

    theirs._BaseWarmupScheduler.__bases__ = (WithoutVerbose,)


def _find() -> str:
    if str(COMPAT) not in sys.path and importlib.util.find_spec("dassl") is None:
        sys.path.append(str(COMPAT))
    spec = importlib.util.find_spec("dassl")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"Dassl is not installed and {COMPAT} is missing: see docs/PLUGIN.md")
    if Path(spec.origin).is_relative_to(COMPAT):
        return "compat/dassl (Dassl itself is not installed)"
    _mend_installed_dassl()
    return f"the installed Dassl at {Path(spec.origin).parent}"


DASSL_IN_USE = _find()
