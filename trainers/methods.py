"""The methods, by their being there: every package below trainers/ that has METHODS, the records of its methods."""

import functools
import importlib
import pkgutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from .options import Method


@functools.cache
def methods() -> dict[str, Method]:
    """Every method by its trainer's name, in the order of tables; imports their options, and neither torch nor Dassl.

    Raises ValueError for two methods of one name, and for settings TRAINER.<KEY>.* that two kinds of options declare.
    """
    found: list[Method] = []
    for entry in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if entry.ispkg and entry.name != "core":
            module = importlib.import_module(f".{entry.name}", __package__)
            found += [replace(method, package=module.__name__) for method in getattr(module, "METHODS", ())]
    for what in ("trainer", "name"):
        values = [getattr(method, what) for method in found]
        double = next((value for value in values if values.count(value) > 1), None)
        if double:
            raise ValueError(f'two methods are called "{double}": give one another {what}')
    keys: dict[str, Method] = {}
    for method in found:
        first = keys.setdefault(method.options.KEY, method)
        if method.options.KEY and first.options is not method.options:
            raise ValueError(
                f"{first.trainer} and {method.trainer} both declare TRAINER.{method.options.KEY}.*: give one's options "
                "another KEY"
            )
    return {method.trainer: method for method in sorted(found, key=lambda method: (method.place, method.name))}


def model_class(method: Method) -> Any:
    """Its model, a class below AdaptedCLIP; imports torch."""
    return getattr(importlib.import_module(f"{method.package}.model"), method.model)


def register_all() -> None:
    """Imports every method's trainer, so that its name is in Dassl's registry."""
    for package in {method.package: None for method in methods().values()}:
        importlib.import_module(f"{package}.trainer")
