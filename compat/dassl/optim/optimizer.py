"""cfg.OPTIM -> torch optimiser."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from yacs.config import CfgNode

AVAI_OPTIMS = ["adam", "amsgrad", "sgd", "rmsprop", "radam", "adamw"]


def _staged_groups(model: nn.Module, optim_cfg: CfgNode) -> list[dict]:
    """Two groups: parts not named in NEW_LAYERS learn BASE_LR_MULT times slower."""
    model = model.module if isinstance(model, nn.DataParallel) else model
    named = [optim_cfg.NEW_LAYERS] if isinstance(optim_cfg.NEW_LAYERS, str) else list(optim_cfg.NEW_LAYERS)
    base: list[nn.Parameter] = []
    new: list[nn.Parameter] = []
    for name, child in model.named_children():
        (new if name in named else base).extend(child.parameters())
    return [{"params": base, "lr": optim_cfg.LR * optim_cfg.BASE_LR_MULT}, {"params": new}]


def build_optimizer(
    model: nn.Module | Iterable | None, optim_cfg: CfgNode, param_groups: Any = None
) -> torch.optim.Optimizer:
    """The optimiser that `optim_cfg` names, over `param_groups` if given, else over the model's parameters.

    Raises ValueError for an unknown name.
    """
    c = optim_cfg
    if c.NAME not in AVAI_OPTIMS:
        raise ValueError(f"OPTIM.NAME must be one of {AVAI_OPTIMS}, but is {c.NAME}")
    if param_groups is None:
        if c.STAGED_LR:
            if not isinstance(model, nn.Module):
                raise TypeError("OPTIM.STAGED_LR needs a module, to find the layers by name")
            param_groups = _staged_groups(model, c)
        else:
            param_groups = list(model.parameters() if isinstance(model, nn.Module) else model or [])
    common = {"lr": c.LR, "weight_decay": c.WEIGHT_DECAY}
    betas = (c.ADAM_BETA1, c.ADAM_BETA2)
    if c.NAME == "sgd":
        return torch.optim.SGD(
            param_groups, momentum=c.MOMENTUM, dampening=c.SGD_DAMPNING, nesterov=c.SGD_NESTEROV, **common
        )
    if c.NAME == "rmsprop":
        return torch.optim.RMSprop(param_groups, momentum=c.MOMENTUM, alpha=c.RMSPROP_ALPHA, **common)
    if c.NAME == "radam":
        return torch.optim.RAdam(param_groups, betas=betas, decoupled_weight_decay=True, **common)  # as Dassl's own
    if c.NAME == "adamw":
        return torch.optim.AdamW(param_groups, betas=betas, **common)
    return torch.optim.Adam(param_groups, betas=betas, amsgrad=c.NAME == "amsgrad", **common)
