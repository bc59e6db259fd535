"""Checkpoints that are whole, small and safe to open, and the random states that make resuming exact.

A file appears under its name only when it is complete and on disk; a digest of its tensors is stored inside and checked
when it is read; reading never executes anything (weights_only).
"""

import hashlib
import random
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .files import write_atomically

FOLDER = "prompt_learner"


class _LeftOut:
    """Stands for a scheduler or optimiser that Dassl pickled beside the weights; takes its state and does nothing."""

    def __setstate__(self, state: Any) -> None:
        pass


def _empty(factory: Any = None) -> dict:
    """In the place of defaultdict, which weights_only does not fill."""
    return {}


_PICKLED_BY_DASSL: list[Any] = [
    *((_LeftOut, f"torch.optim.lr_scheduler.{name}") for name in ("CosineAnnealingLR", "StepLR", "MultiStepLR")),
    *((_LeftOut, f"torch.optim.{name.lower()}.{name}") for name in ("SGD", "Adam", "AdamW", "RMSprop", "RAdam")),
    (_empty, "collections.defaultdict"),
    dict,
]


def digest_of(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes `state`, whose "state_dict" holds the trained tensors, to `path`, and its name to `checkpoint` beside it."""
    import io

    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(state | {"sha256": digest_of(state["state_dict"])}, buffer)
    write_atomically(path, buffer.getvalue())
    write_atomically(path.parent / "checkpoint", f"{path.name}\n".encode())


def load(path: Path) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU: ours, or one that CoOp, CoCoOp or LASP wrote.

    Raises FileNotFoundError, or ValueError when the file is truncated, no checkpoint, holds code, or its digest is off.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no checkpoint, or a truncated one: train again or choose another epoch")
    try:
        with torch.serialization.safe_globals(_PICKLED_BY_DASSL):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive shows as any of several kinds; a forbidden one as UnpicklingError
        why = "it holds code, which is never run" if "Unpickling" in type(error).__name__ else "it is damaged"
        raise ValueError(f"{path} cannot be read: {why}") from error
    if not isinstance(state, dict) or not isinstance(state.get("state_dict"), Mapping):
        raise ValueError(f'{path} is no checkpoint: it has no "state_dict"')
    if "sha256" in state and state["sha256"] != digest_of(state["state_dict"]):
        raise ValueError(f"{path} is damaged: its tensors do not match the digest stored with them")
    return state


def latest(directory: Path) -> Path | None:
    """The checkpoint that directory/prompt_learner/checkpoint names, or None when nothing was saved there yet."""
    pointer = directory / FOLDER / "checkpoint"
    if not pointer.is_file():
        return None
    return pointer.parent / pointer.read_text().strip()


def copy_into(learned: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor], path: Path) -> None:
    """Copies checkpointed tensors into the model's. Raises ValueError, naming tensors and shapes, if they do not fit."""
    faults = [f"{name} is missing" for name in learned if name not in found]
    faults += [f"{name} is not a part of this model" for name in found if name not in learned]
    faults += [
        f"{name} is {tuple(found[name].shape)}, but should be {tuple(tensor.shape)}"
        for name, tensor in learned.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if faults:
        raise ValueError(f"{path} does not fit this model: {'; '.join(faults)}")
    with torch.no_grad():
        for name, tensor in learned.items():
            tensor.copy_(found[name])


def random_state() -> dict[str, Any]:
    """The states of python's, numpy's and torch's generators, in types that weights_only reads."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(words), gauss],
        "numpy": [
            kind,
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],  # of the one device in use
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Puts every generator back to where random_state() saw it."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"][0])
