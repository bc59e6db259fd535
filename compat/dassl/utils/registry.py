"""Name -> class, filled by decorators."""

from collections.abc import Callable
from typing import Any


class Registry:
    """Registers classes or functions under their own names.

    `@REGISTRY.register()` above a class, or `REGISTRY.register(cls)`. A name can be taken once, unless `force=True`.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._entries: dict[str, Any] = {}

    def register(self, obj: Any = None, force: bool = False) -> Any:
        if obj is None:
            return lambda decorated: self.register(decorated, force=force)
        name = obj.__name__
        if name in self._entries and not force:
            raise KeyError(f'"{name}" is already registered in the {self._name} registry')
        self._entries[name] = obj
        return obj

    def get(self, name: str) -> Callable:
        """Raises KeyError for a name nobody registered."""
        if name not in self._entries:
            raise KeyError(f'"{name}" is not in the {self._name} registry, which holds {self.registered_names()}')
        return self._entries[name]

    def registered_names(self) -> list[str]:
        return list(self._entries)
