"""What a method says of itself: what it may be told, checked wherever that comes from, and what it is.

A method declares its options as a dataclass below `Options`, and gets from it the configuration node, the model's keyword
arguments, the checks, and its part of docs/SETTINGS.md; `Method` is its record. Nothing here imports torch, or knows of
configurations.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

LARGEST = 1e38  # about what float32 holds


@dataclass(frozen=True)
class Setting:
    """What a setting may be. kind: as an annotation ("int", "float | None", "list[str]"); numbers, also those in lists,
    lie from `least` (or above `above`) to `most`, words among `among`; values in `also` are allowed besides."""

    help: str
    kind: str = ""
    least: float | None = None
    most: float | None = None
    above: float | None = None
    among: tuple[str, ...] = ()
    also: tuple[Any, ...] = ()
    default: Any = None  # Dassl's own settings have theirs in Dassl
    needs: Mapping[str, tuple[Any, ...]] | None = (
        None  # other settings, and the values of theirs with which this one acts
    )
    unless: Mapping[str, tuple[Any, ...]] | None = None  # and those with which it does not

    def checked(self, name: str, value: Any) -> Any:
        """`value` in the setting's type. Raises ValueError, naming setting, value and what is allowed."""
        kinds = [kind.strip() for kind in self.kind.split("|")]
        if not any(fits(kind, value) for kind in kinds):
            raise ValueError(f"{name} is {shown(value)}: use {self.allowed()}")
        for one in value if isinstance(value, list | tuple) else [value]:
            if one not in self.also and not self._in_range(one):
                raise ValueError(f"{name} is {shown(value)}: use {self.allowed()}")
        return float(value) if kinds[0] == "float" and type(value) is int else value

    def _in_range(self, value: Any) -> bool:
        if isinstance(value, str):
            return not self.among or value in self.among
        if isinstance(value, bool) or not isinstance(value, int | float):
            return True
        if "float" in self.kind and abs(value) > LARGEST:
            return False
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
        )

    def why_idle(self, value_of: Callable[[str], Any]) -> str:
        """Why it can do nothing beside the values of others, in words behind its name; empty where it can."""
        for other, values in (self.needs or {}).items():
            now = value_of(other)
            if now not in values:
                return f"acts with {other.upper()} {' or '.join(map(shown, values))} alone, and it is {shown(now)}"
        for other, values in (self.unless or {}).items():
            if value_of(other) in values:
                return f"does nothing with {other.upper()} {shown(value_of(other))}"
        return ""

    def allowed(self) -> str:
        """In words, what the setting may be."""
        parts = [_IN_WORDS[kind.strip()] for kind in self.kind.split("|")]
        if self.among:
            parts = [_or(self.among) if part == "text" else part for part in parts]
        low, high = self.least, self.most
        bounds = [f"from {low} to {high}"] if None not in (low, high) else []
        bounds += [f"at least {low}"] if low is not None and high is None else []
        bounds += [f"above {self.above}"] if self.above is not None else []
        bounds += [f"at most {high}"] if high is not None and low is None else []
        if self.among and self.kind.startswith("list"):
            bounds.append(f"of {_or(self.among)}")
        return _or([" ".join([parts[0], *bounds]), *parts[1:], *(str(value) or '""' for value in self.also)])


_IN_WORDS = {
    "int": "a whole number", "float": "a number", "bool": "True or False", "None": "None", "str": "text",
    "list[int]": "a list of whole numbers", "list[float]": "a list of numbers",
    "list[str]": "a list of words", "list[list[str]]": "lists of words", "list[list[int]]": "lists of whole numbers",
    "tuple[int, int]": "two whole numbers", "tuple[float, float]": "two numbers",
    "tuple[float, float, float]": "three numbers",
}  # fmt: skip


def _or(words: Iterable[str]) -> str:
    *first, last = (word or '""' for word in words)
    return f"{', '.join(first)} or {last}" if first else last


def shown(value: Any) -> str:
    """A value as a message quotes it."""
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def fits(kind: str, value: Any) -> bool:
    """Whether a value is of a kind, see Setting."""
    if kind == "None":
        return value is None
    if kind == "bool":
        return isinstance(value, bool)
    if kind == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "float":
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind == "str":
        return isinstance(value, str)
    container, _, inner = kind.partition("[")
    if container not in ("list", "tuple") or not isinstance(value, list | tuple):
        return False
    inner = inner.removesuffix("]")
    if container == "tuple" and "," in inner:
        each = [part.strip() for part in inner.split(",")]
        return len(value) == len(each) and all(map(fits, each, value))
    return all(fits(inner, one) for one in value)


PRECISIONS = ("fp32", "fp16", "amp", "bf16")
HEADS = ("none", "text_means")  # on a trained model's image features


def option(default: Any, help: str, **limits: Any) -> Any:
    """A field of an Options dataclass; limits as in Setting."""
    setting = {"setting": Setting(help, default=default, **limits)}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=setting)
    return field(default=default, metadata=setting)


@dataclass(frozen=True)
class Options:
    """Base of a method's options: field top_k is the setting TRAINER.<KEY>.TOP_K. Raises ValueError for a bad value."""

    KEY: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for name, setting in self._own().items():
            object.__setattr__(self, name, setting.checked(name.upper(), getattr(self, name)))

    @classmethod
    def _own(cls) -> dict[str, Setting]:
        found = {}
        for f in fields(cls):
            kind = f.type.__name__ if type(f.type) is type else str(f.type)
            unknown = [part.strip() for part in kind.split("|") if part.strip() not in _IN_WORDS]
            if unknown or "setting" not in f.metadata:
                what = f"is of type {unknown[0]}: use {', '.join(_IN_WORDS)}" if unknown else "is no option(...)"
                raise TypeError(f"{cls.__name__}.{f.name} {what}")
            found[f.name] = replace(f.metadata["setting"], kind=kind)
        return found

    @classmethod
    def settings(cls) -> dict[str, Setting]:
        """The options by their full names in a configuration."""
        return {f"TRAINER.{cls.KEY}.{name.upper()}": setting for name, setting in cls._own().items()}

    @classmethod
    def of(cls, node: Mapping[str, Any]) -> Any:
        """The options that a configuration's node TRAINER.<KEY> holds, as far as it was written when there were these."""
        return cls(**{f.name: node[f.name.upper()] for f in fields(cls) if f.name.upper() in node})

    def keywords(self, kind: "type[Options]") -> dict[str, Any]:
        """Those of `kind`, a base class, as keyword arguments."""
        return {f.name: getattr(self, f.name) for f in fields(kind)}


@dataclass(frozen=True)
class Method:
    """The record of a method, in METHODS of its package below trainers/. Raises ValueError where it contradicts itself.

    name: what one types, scripts/run.py NAME. trainer: its class in trainer.py, as Dassl's registry has it. model: its
    class in model.py. title: what people read. options: what it may be told. takes_steps: whether it is trained step by
    step, or made at once. looks_at: the parts of a dataset whose pictures it sees. reads_names: whether class names decide
    anything. knows_new_classes: whether it can be asked for classes that it was not trained on. chooses_on_validation:
    whether it chooses by validation pictures, where there are some. told_which_classes: whether it answers otherwise for
    the classes of training than for others. settings_by_dataset: whether its authors chose options for each. templates:
    which of DATASET.TEMPLATE and TEMPLATE_GROUPS it reads. heads: what MODEL.HEAD.NAME may be, the usual first. ablations:
    parts of it that can be changed, by name, with the settings that do it. federated: whether clients train it. place: in
    tables. recipes_of: the method whose recipes it shares.
    """

    name: str
    trainer: str
    model: str
    title: str = ""
    options: type[Options] = Options
    takes_steps: bool = True
    looks_at: tuple[str, ...] = ("train", "val", "test")
    reads_names: bool = True
    knows_new_classes: bool = True
    chooses_on_validation: bool = False
    told_which_classes: bool = False
    settings_by_dataset: bool = False
    templates: tuple[str, ...] = ()
    heads: tuple[str, ...] = HEADS[:1]
    ablations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    federated: bool = False
    place: int = 100
    recipes_of: str = ""
    package: str = ""  # where it was found

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", self.title or self.trainer)
        object.__setattr__(self, "recipes_of", self.recipes_of or self.trainer)
        self.options.settings()  # which checks their types
        if self.federated and self.knows_new_classes:
            raise ValueError(
                f"{self.trainer} is tested by its clients, on their own classes: set knows_new_classes=False"
            )
        if set(self.heads) - set(HEADS):
            raise ValueError(f"{self.trainer} has heads {self.heads}: use {HEADS}")

    def head(self, asked: str) -> str:
        """The head where MODEL.HEAD.NAME is `asked`, empty for none."""
        name = asked or self.heads[0]
        return "" if name == "none" else name

    @property
    def keeps_a_model(self) -> bool:
        """Whether other runs of a protocol evaluate the model of its training run, instead of making theirs."""
        return self.takes_steps or (self.draws and self.knows_new_classes)

    @property
    def draws(self) -> bool:
        """Whether it sees training pictures, so that seeds and shots matter."""
        return "train" in self.looks_at
