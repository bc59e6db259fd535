"""Which client has which pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Part:
    """A client's pictures. train: their places in the training set. classes: labels of these. domains: empty for any."""

    train: tuple[int, ...]
    classes: frozenset[int]
    domains: frozenset[int] = frozenset()

    def asks_for(self, item: Any) -> bool:
        """Whether a test picture (Datum) is of the kind that this client has."""
        return item.domain in self.domains if self.domains else item.label in self.classes


def partition(kind: str, items: Sequence[Any], clients: int, concentration: float, seed: int) -> list[Part]:
    """The parts of all clients, drawn by `seed`; each picture is in one part, and no part is empty.

    kind: "classes", "dirichlet" or "domains". items: the training pictures (Datum). concentration: of the Dirichlet
    distribution by which each class is shared out; a client that it leaves without pictures gets one of the client that
    has most. Raises ValueError where this cannot be.
    """
    if clients > len(items):
        raise ValueError(f"CLIENTS is {clients}, but there are {len(items)} training pictures: use fewer clients")
    rng = np.random.default_rng([seed, clients])
    labels_N, domains_N = np.array([item.label for item in items]), np.array([item.domain for item in items])
    if kind == "dirichlet":
        return [_part(items, own) for own in _shares(labels_N, clients, concentration, rng)]
    by_N, what = (labels_N, "classes") if kind == "classes" else (domains_N, "domains")
    values = np.unique(by_N)
    if kind == "classes":
        if clients > len(values):
            raise ValueError(
                f"CLIENTS is {clients}, but there are {len(values)} classes: use fewer, or PARTITION dirichlet"
            )
        return [
            _part(items, np.flatnonzero(np.isin(by_N, own))) for own in np.array_split(rng.permutation(values), clients)
        ]
    if len(values) < 2 or clients % len(values):
        raise ValueError(
            f"CLIENTS is {clients}, but the training pictures have {len(values)} {what}: "
            + ("use PARTITION classes or dirichlet" if len(values) < 2 else f"use {len(values)}, or a multiple of it")
        )
    each = clients // len(values)
    return [
        _part(items, own, frozenset({int(value)}))
        for value in values
        for own in np.array_split(rng.permutation(np.flatnonzero(by_N == value)), each)
    ]


def _shares(labels_N: np.ndarray, clients: int, concentration: float, rng: np.random.Generator) -> list[np.ndarray]:
    found: list[list[int]] = [[] for _ in range(clients)]
    for label in np.unique(labels_N):
        own = rng.permutation(np.flatnonzero(labels_N == label))
        cuts = np.round(np.cumsum(rng.dirichlet(np.full(clients, concentration)))[:-1] * len(own)).astype(int)
        for client, some in zip(found, np.split(own, cuts), strict=True):
            client.extend(some.tolist())
    for client in found:
        if not client:
            client.append(max(found, key=len).pop())
    return [np.array(sorted(client)) for client in found]


def _part(items: Sequence[Any], own_N: np.ndarray, domains: frozenset[int] = frozenset()) -> Part:
    train = tuple(int(i) for i in own_N)
    return Part(train, frozenset(items[i].label for i in train), domains)
