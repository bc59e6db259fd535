"""Checkpoints and parameters."""

import os
import warnings
from typing import Any

import torch
from torch import nn

from .tools import mkdir_if_missing


def _without_module_prefix(state_dict: dict[str, Any]) -> dict[str, Any]:
    return {key.removeprefix("module."): value for key, value in state_dict.items()}


def save_checkpoint(
    state: dict[str, Any],
    save_dir: str,
    is_best: bool = False,
    remove_module_from_keys: bool = True,
    model_name: str = "",
) -> None:
    """Writes `state` to save_dir/model.pth.tar-<epoch> (or `model_name`) and its name to save_dir/checkpoint.

    The file appears whole or not at all; with `is_best`, a second copy is called model-best.pth.tar.
    """
    mkdir_if_missing(save_dir)
    if remove_module_from_keys:
        state["state_dict"] = _without_module_prefix(state["state_dict"])
    name = model_name or f"model.pth.tar-{state['epoch']}"
    for target in [name, "model-best.pth.tar"] if is_best else [name]:
        path = os.path.join(save_dir, target)
        torch.save(state, path + ".partial")
        os.replace(path + ".partial", path)
    print(f"Checkpoint saved to {os.path.join(save_dir, name)}")
    pointer = os.path.join(save_dir, "checkpoint")
    with open(pointer + ".partial", "w") as file:
        file.write(f"{name}\n")
    os.replace(pointer + ".partial", pointer)


def load_checkpoint(fpath: str) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU; nothing in it is executed (weights_only)."""
    if fpath is None:
        raise ValueError("File path is None")
    if not os.path.exists(fpath):
        raise FileNotFoundError(f'File is not found at "{fpath}"')
    return torch.load(fpath, map_location="cpu", weights_only=True)


def resume_from_checkpoint(fdir: str, model: nn.Module, optimizer: Any = None, scheduler: Any = None) -> int:
    """Loads the checkpoint that fdir/checkpoint names into model, optimiser and scheduler; returns its epoch."""
    with open(os.path.join(fdir, "checkpoint")) as file:
        fpath = os.path.join(fdir, file.readline().strip())
    print(f'Loading checkpoint from "{fpath}"')
    checkpoint = load_checkpoint(fpath)
    model.load_state_dict(checkpoint["state_dict"])
    print("Loaded model weights")
    if optimizer is not None and checkpoint.get("optimizer") is not None:
        optimizer.load_state_dict(checkpoint["optimizer"])
        print("Loaded optimizer")
    if scheduler is not None and checkpoint.get("scheduler") is not None:
        scheduler.load_state_dict(checkpoint["scheduler"])
        print("Loaded scheduler")
    print(f"Previous epoch: {checkpoint['epoch']}")
    return checkpoint["epoch"]


def load_pretrained_weights(model: nn.Module, weight_path: str) -> None:
    """Copies the tensors that fit by name and shape from a checkpoint; says which ones were left out."""
    checkpoint = load_checkpoint(weight_path)
    found = _without_module_prefix(checkpoint.get("state_dict", checkpoint))
    own = model.state_dict()
    fitting = {k: v for k, v in found.items() if k in own and own[k].shape == v.shape}
    if not fitting:
        warnings.warn(f"Nothing in {weight_path} fits this model by name and shape", stacklevel=2)
        return
    model.load_state_dict(own | fitting)
    print(f"Successfully loaded pretrained weights from {weight_path}")
    if len(fitting) < len(found):
        print(f"Left out, because name or shape differ: {sorted(set(found) - set(fitting))}")
