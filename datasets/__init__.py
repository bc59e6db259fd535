"""One small file per benchmark; register_all() makes them known to Dassl."""

import importlib
import pkgutil

import trainers  # noqa: F401  (makes `dassl` importable)

MODULES = [m.name for m in pkgutil.iter_modules(__path__)]


def register_all() -> None:
    """Imports every benchmark, so that its name is in Dassl's registry."""
    for name in MODULES:
        importlib.import_module(f"{__name__}.{name}")
