"""The order in which a loader visits its pictures."""

from typing import Any

from torch.utils.data import RandomSampler, Sampler, SequentialSampler

_SAMPLERS = {"RandomSampler": RandomSampler, "SequentialSampler": SequentialSampler}


def build_sampler(sampler_type: str, data_source: Any = None, **kwargs: Any) -> Sampler:
    """RandomSampler or SequentialSampler over `data_source`. Raises ValueError for any other name."""
    if sampler_type not in _SAMPLERS:
        raise ValueError(f"sampler {sampler_type!r} is unknown; known: {', '.join(_SAMPLERS)}")
    return _SAMPLERS[sampler_type](data_source)
