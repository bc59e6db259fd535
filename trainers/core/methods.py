"""The methods in trainers/, by their being there."""

import importlib

from .settings import methods


def register_all() -> None:
    """Imports every module that defines a trainer, so that its name is in Dassl's registry."""
    for module in sorted({method.module for method in methods().values()}):
        importlib.import_module(f"trainers.{module}")
