"""Checkpoints that are whole, small and safe to open, and the random states that make resuming exact.

A file appears under its name only when it is complete and on disk; a digest of all that it holds is stored inside and
checked when it is read; reading never executes anything (weights_only) and allocates no more than the file's own size.
"""

import hashlib
import io
import pickletools
import random
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..runs.files import CHECKPOINTS as FOLDER
from ..runs.files import write_atomically


class _LeftOut:
    """Placeholder for a scheduler or optimiser that Dassl pickled beside the weights; accepts its state and ignores
    it."""

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


def digest_of(value: Any) -> str:
    """SHA-256 over everything in nested dictionaries, lists, tensors (names, types, shapes, values) and plain values."""
    digest = hashlib.sha256()
    left = 10**6  # things; a state of ours has a few thousand, and shared lists could stand for any number

    def take(node: Any, depth: int = 0) -> None:
        nonlocal left
        left -= 1
        if left < 0 or depth > 50:
            raise ValueError("a checkpoint that holds more things than any training has is damaged")
        if isinstance(node, torch.Tensor):
            if not _is_plain(node):
                raise ValueError("a checkpoint with tensors that do not lie in memory plainly is damaged")
            tensor = node.detach().cpu().contiguous()
            digest.update(f"tensor {tensor.dtype} {tuple(tensor.shape)};".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(node, Mapping):
            digest.update(f"mapping {len(node)};".encode())
            for key in sorted(node, key=repr):
                digest.update(f"{key!r}:".encode())
                take(node[key], depth + 1)
        elif isinstance(node, list | tuple):
            digest.update(f"{type(node).__name__} {len(node)};".encode())
            for one in node:
                take(one, depth + 1)
        else:
            digest.update(f"{type(node).__name__} {node!r};".encode())

    take(value)
    return digest.hexdigest()


def _older_digest_of(tensors: Mapping[str, torch.Tensor]) -> str:
    """What this project's first release stored under "sha256": the trained tensors alone."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes `state`, whose "state_dict" holds the trained tensors, to `path`, and its name to `checkpoint` beside it.

    Tensors may lie on any device; the file holds them as the CPU does, so that every machine can read it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    state = _on_cpu({key: value for key, value in state.items() if key not in ("digest", "sha256")})
    torch.save(state | {"digest": digest_of(state)}, buffer)
    write_atomically(path, buffer.getvalue())
    write_atomically(path.parent / "checkpoint", f"{path.name}\n".encode())


def _on_cpu(value: Any) -> Any:
    """`value` with every tensor in it, however deep, detached and on the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {key: _on_cpu(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on_cpu(one) for one in value)
    return value


def load(path: Path) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU: ours, or one that CoOp, CoCoOp, LASP or MoCoOp's authors' code wrote.

    Raises FileNotFoundError, or ValueError when the file is truncated, no checkpoint, holds code, or its digest is off.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    _check_archive(path)
    try:
        with torch.serialization.safe_globals(_PICKLED_BY_DASSL):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive shows as any of several kinds; a forbidden one as UnpicklingError
        why = "it holds code, which is never run" if "Unpickling" in type(error).__name__ else "it is damaged"
        raise ValueError(f"{path} cannot be read: {why}") from error
    try:
        _check_digest(state, path)
    except (RuntimeError, NotImplementedError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {str(error).splitlines()[0][:200]}") from None
    for name, tensor in state["state_dict"].items():
        if tensor.is_floating_point() and not tensor.float().isfinite().all():
            raise ValueError(f'{path} holds numbers that are not finite, first in "{name}": choose another epoch')
    return state


def _check_digest(state: Any, path: Path) -> None:
    """Raises ValueError unless `state` is a table with plain tensors and, if it is ours, matches its digest."""
    if not isinstance(state, dict) or not _is_table_of_tensors(state.get("state_dict")):
        raise ValueError(f'{path} is no checkpoint: it has no "state_dict" of named tensors')
    if "digest" in state:
        if state["digest"] != digest_of({key: value for key, value in state.items() if key != "digest"}):
            raise ValueError(f"{path} is damaged: what it holds does not match the digest stored with it")
    elif "sha256" in state and "settings" not in state:  # the first release's
        if state["sha256"] != _older_digest_of(state["state_dict"]):
            raise ValueError(f"{path} is damaged: its tensors do not match the digest stored with them")
    elif state.keys() & {"identity", "random", "settings", "precision", "text_chunk", "best_result"}:
        raise ValueError(f"{path} is damaged: it has lost the digest of what it holds")


def is_ours(state: Mapping[str, Any]) -> bool:
    """Whether this project wrote it, so that names, types and identity have to be exactly ours."""
    return "digest" in state or "sha256" in state


def _check_archive(path: Path) -> None:
    """Raises ValueError unless every entry is stored plainly, matches its checksum, and makes nothing but tensors."""
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError(f"{path} is no checkpoint, or a truncated one: train again or choose another epoch")
        with zipfile.ZipFile(path) as archive:
            packed = [info.filename for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
            if packed:
                raise ValueError(f"{path} is no checkpoint: {packed[0]} in it is compressed, which torch never does")
            if sum(info.file_size for info in archive.infolist()) > path.stat().st_size:
                raise ValueError(f"{path} is damaged: its entries claim more than the file holds")
            damaged = archive.testzip()
            for name in archive.namelist():
                if name.endswith("data.pkl") and _ALLOCATES & _globals_of(archive.read(name)):
                    raise ValueError(f"{path} cannot be read: it holds code, which is never run")
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if damaged is not None:
        raise ValueError(f"{path} is damaged: {damaged} in it does not match its checksum")


# what weights_only would let a few bytes allocate any amount with
_ALLOCATES = {"builtins bytearray", "__builtin__ bytearray"}


def _globals_of(pickled: bytes) -> set[str]:
    try:
        return {str(argument) for opcode, argument, _ in pickletools.genops(pickled) if opcode.name == "GLOBAL"}
    except Exception:  # noqa: BLE001  (pickletools raises what it meets; torch names the damage afterwards)
        return set()


def _is_table_of_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) and _is_plain(tensor)
        for name, tensor in value.items()
    )


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether its storage holds every one of its numbers; otherwise a file of a few bytes could expand to gigabytes."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_conj() or tensor.is_neg():
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def latest(directory: Path) -> Path | None:
    """The checkpoint that directory/prompt_learner/checkpoint names, or None when nothing was saved there yet."""
    pointer = directory / FOLDER / "checkpoint"
    if not pointer.is_file():
        return None
    with open(pointer, "rb") as file:
        name = file.read(256).decode(errors="replace").strip()
    if not re.fullmatch(r"[\w.-]{1,100}", name) or name.startswith("."):
        raise ValueError(
            f"{pointer} names {name[:60]!r}, which is no file beside it: remove it, and the run starts anew"
        )
    return pointer.parent / name


def model_file(directory: str | Path, epoch: int | None = None) -> Path:
    """The checkpoint of `epoch` in a run's folder, else the best on validation, else the last. Raises ValueError."""
    if not directory:
        raise ValueError("nothing to evaluate: give the folder of a trained run with --model-dir")
    folder = Path(directory) / FOLDER
    if epoch is not None:
        return folder / f"model.pth.tar-{epoch}"
    best = folder / "model-best.pth.tar"
    return best if best.is_file() else latest(Path(directory)) or best


def tensors_of(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The trained tensors, without the prefix that DataParallel adds."""
    return {key.removeprefix("module."): value for key, value in state["state_dict"].items()}


def copy_into(
    learned: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor], path: Path, same_types: bool = False
) -> None:
    """Copies checkpointed tensors into the model's. Raises ValueError, naming tensors and shapes, if they do not fit.

    same_types: dtypes must match too (other projects' tensors may be in half precision).
    """
    faults = [f"{name} is missing" for name in learned if name not in found]
    faults += [f"{name} is not a part of this model" for name in found if name not in learned]
    faults += [
        f"{name} is {tuple(found[name].shape)}, but should be {tuple(tensor.shape)}"
        for name, tensor in learned.items()
        if name in found and found[name].shape != tensor.shape
    ]
    faults += [
        f"{name} is {found[name].dtype}, but should be {tensor.dtype}"
        for name, tensor in learned.items()
        if name in found
        and (
            found[name].dtype != tensor.dtype
            if same_types or not tensor.is_floating_point()
            else not found[name].is_floating_point()
        )
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
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else [],  # of the one device in use
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Puts every generator back to where random_state() saw it."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_initialized():  # with USE_CUDA False nothing may open the GPU
        torch.cuda.set_rng_state(state["cuda"][0])
