"""Backbones opened in advance by the process that runs are forked from (harness/fork_server.py).

A run that uses such a backbone continues with the random numbers that it would have had after opening it itself.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from .backbones import Backbone, Source, source_of


@dataclass(frozen=True)
class _Opened:
    digest: str
    backbone: Backbone
    after: dict[bytes, torch.Tensor]  # state of torch's generator before opening -> state after it


_OPENED: dict[str, _Opened] = {}


def open_ahead(name: str, seeds: Iterable[int]) -> None:
    """Opens a backbone for runs of these seeds. Raises what opening it raises."""
    source, after = source_of(name), {}
    digest, backbone = source.digest(), None
    for seed in seeds:
        torch.default_generator.manual_seed(seed)
        before, others = _state(), (random.getstate(), str(np.random.get_state()))
        backbone = source.load()
        if (random.getstate(), str(np.random.get_state())) != others:
            return  # it draws from generators that are not followed here
        after[before] = torch.get_rng_state()
    if backbone is not None:
        source.preprocessing(), backbone.vocabulary.encode("a")  # which read files of their own
        _OPENED[name] = _Opened(digest, backbone, after)


def opened(source: Source) -> Backbone:
    """source.load(), or the same opened in advance. Each is handed out once, since a run modifies its backbone."""
    ready = _OPENED.pop(source.name, None)
    after = ready.after.get(_state()) if ready is not None else None
    if ready is None or after is None or ready.digest != source.digest():
        return source.load()
    torch.set_rng_state(after)
    return ready.backbone


def _state() -> bytes:
    return torch.get_rng_state().numpy().tobytes()
