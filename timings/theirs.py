"""Starts CoOp's and MoCoOp's own code, from checkouts that the user brings, on a current PyTorch and without a GPU.

    python timings/theirs.py CoOp Dassl.pytorch small_clip.pt -- --trainer CoOp ...    CoOp's train.py

Nothing of theirs is changed but what keeps it from starting: schedulers' `verbose`, np.int, wilds, CLIP from a file.
"""

import importlib
import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


def start_coop(coop: str, dassl: str, backbone: str, words: list[str]) -> None:
    """CoOp's train.py with `words` as its command line; `backbone` stands for every model's name."""
    import numpy as np

    sys.path[:0] = [coop, dassl]
    np.int = int  # type: ignore[attr-defined]
    sys.modules["dassl.data.datasets.dg.wilds"] = ModuleType("wilds")
    import torch
    from torch.optim.lr_scheduler import LRScheduler

    schedules: Any = importlib.import_module("dassl.optim.lr_scheduler")

    class WithoutVerbose(LRScheduler):
        def __init__(self, optimizer: Any, last_epoch: int = -1, verbose: bool = False) -> None:
            super().__init__(optimizer, last_epoch)

    schedules._BaseWarmupScheduler.__bases__ = (WithoutVerbose,)
    clip: Any = importlib.import_module("clip.clip")
    clip._MODELS = dict.fromkeys([*clip._MODELS, "small"], backbone)
    clip._download = lambda path, *_: path
    load = torch.load
    torch.load = lambda *args, **kwargs: load(*args, **{"weights_only": False} | kwargs)  # their default then
    sys.argv = [str(Path(coop) / "train.py"), *words]
    runpy.run_path(sys.argv[0], run_name="__main__")


def authors_model(
    checkout: str, clip_model: Any, classnames: list[str], groups: list[list[str]], batch: int, device: str = "cpu"
) -> Any:
    """CustomCLIP of MoCoOp's authors on `clip_model`, on the device where that is."""
    import torch
    from yacs.config import CfgNode

    import trainers.core.settings.dassl_support  # noqa: F401  (makes dassl importable)

    sys.path.append(checkout)
    sys.modules["wandb"] = ModuleType("wandb")
    if device == "cpu":
        torch.Tensor.cuda = lambda self, *_: self  # type: ignore[method-assign, assignment]
        torch.nn.Module.cuda = lambda self, *_: self  # type: ignore[method-assign, assignment]
    moe = importlib.import_module("prompting.moe")
    cfg = CfgNode({
        "INPUT": {"SIZE": (clip_model.visual.input_resolution,) * 2},
        "DATASET": {"NAME": "Caltech101", "SUBSAMPLE_CLASSES": "all", "INCLUDE_ALL_CLASSES": False},
        "DATALOADER": {"TRAIN_X": {"BATCH_SIZE": batch}},
        "TRAINER": {"MoCoOp": {
            "ENABLE": True, "ENABLE_CORRECTION": True, "TRAIN_W": True, "FINETUNE_VIT_LN": True, "TEXT_LOSS_WEIGHT": 5.0,
            "GATE_LOSS_WEIGHT": 1.0, "PROMPTS": [t for group in groups for t in group], "GROUPS": list(map(len, groups)),
        }},
    })  # fmt: skip
    model = moe.CustomCLIP(cfg, list(classnames), clip_model, list(classnames), torch.device(device)).to(device)
    for name, parameter in model.named_parameters():
        learned = "prompt_learner" in name or ("image_encoder" in name and ("ln_1" in name or "ln_2" in name))
        parameter.requires_grad_(learned)
    return model


def main() -> None:
    coop, dassl, backbone, *rest = sys.argv[1:]
    start_coop(*(str(Path(path).resolve()) for path in (coop, dassl, backbone)), rest[rest.index("--") + 1 :])


if __name__ == "__main__":
    main()
