"""Writes a training's state to checkpoints and restores it, to resume training or to evaluate."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from ..ranks.collectives import this_rank
from ..runs.identity import Identity
from ..settings.errors import believing
from . import checkpoints
from .averaging import EpochAverage
from .schedule import before_any_step

ANEW = "remove it, or begin anew in another --output-dir"
INTERRUPTED = "model-interrupted.pth.tar"  # written inside an epoch


class Training:
    """The parts of a training whose state a checkpoint holds.

    folder: of the run. about: what tells this run from others ("identity", "config" as yaml, "settings", "precision",
    "contents"). moves_per_epoch: of the schedule.
    """

    def __init__(
        self,
        folder: str | Path,
        model: nn.Module,
        optimiser: Any,
        schedule: Any,
        scaler: Any,
        about: dict[str, Any],
        average: EpochAverage | None = None,
        moves_per_epoch: int = 1,
    ) -> None:
        self.folder = Path(folder) / checkpoints.FOLDER
        self.model: Any = model
        self.optimiser, self.schedule, self.scaler, self.about = optimiser, schedule, scaler, about
        self.average, self.moves_per_epoch = average, moves_per_epoch

    def state(
        self, epoch: int, best_result: float, val_result: float | None = None, chunks: Sequence[int] = ()
    ) -> dict[str, Any]:
        """All that is needed to go on after `epoch` epochs. chunks: each rank's text_chunk, its own share's."""
        tensors = {name: p.detach().cpu().clone() for name, p in self.model.checkpoint_tensors().items()}
        for name, tensor in tensors.items():
            if not tensor.isfinite().all():
                raise FloatingPointError(
                    f'"{name}" is not finite after epoch {epoch}, and is not saved: lower OPTIM.LR, or use fp32 or bf16'
                )
        return {
            "state_dict": tensors,
            "epoch": epoch,
            "optimizer": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "val_result": val_result,
            "best_result": float(best_result),
            "random": checkpoints.random_state(),
            "text_chunk": list(chunks) or [self.model.text_encoder.training_chunk],
            "ranks": this_rank().size,  # whose shares text_chunk was chosen for
            **({} if self.average is None else {"average": self.average.state()}),
            **self.about,
        }

    def save(self, name: str, state: dict[str, Any]) -> None:
        if not this_rank().first:
            return
        checkpoints.save(self.folder / name, state)
        print(f"Checkpoint saved to {self.folder / name}")
        if name != INTERRUPTED:
            (self.folder / INTERRUPTED).unlink(missing_ok=True)

    def restore(self, path: Path, max_epoch: int) -> dict[str, Any]:
        """Puts everything back to where the checkpoint at `path` has it, and returns what it holds.

        Raises ValueError when it is another run's, or was not written by this project.
        """
        state = checkpoints.load(path)
        if "random" not in state:
            raise ValueError(f"{path} was not written by this project and can be evaluated, but not resumed")
        refuse_other(self.about["identity"], state, path, ("trainer", "dataset", "classnames", "backbone_sha256"))
        differing = Identity(self.about["settings"]).differences(Identity.of(state.get("settings", {})))
        if "settings" in state and differing:
            raise ValueError(f"{path} belongs to a run with other settings: {'; '.join(differing[:5])}")
        then, now = (about.get("contents", {}).get("train") for about in (state, self.about))
        if then and now and then != now:
            raise ValueError(f"{path} belongs to a run on other training pictures")
        if type(state.get("epoch")) is not int:
            raise ValueError(f"{path} does not say how many epochs it has seen: {ANEW}")
        if not 0 <= state["epoch"] <= max_epoch:
            raise ValueError(f"{path} is at epoch {state['epoch']} of {max_epoch}: it belongs to another run")
        checkpoints.copy_into(self.model.checkpoint_tensors(), state["state_dict"], path, same_types=True)
        self.model.weights_changed()  # which says, too, in which stage it is
        with believing(path, ANEW):
            self._put_back(state)
        return state

    def _put_back(self, state: dict[str, Any]) -> None:
        """Optimiser, schedule, scaler, chunk and generators, to where `state` has them."""
        with before_any_step():  # it took them in another process
            moves = self.moves_per_epoch * state["epoch"]
            moves += min(int(state.get("batches_done", 0)), self.moves_per_epoch) if self.moves_per_epoch > 1 else 0
            for _ in range(moves):  # drives the live optimiser's rates to where they were
                self.schedule.step()
        rates = [group["lr"] for group in self.optimiser.param_groups]
        self.optimiser.load_state_dict(state["optimizer"])
        self._check_optimiser(rates)
        if state["scaler"]:  # empty when the run began where PREC amp had become fp32
            self.scaler.load_state_dict(state["scaler"])
        precision = self.about["precision"]
        if state.get("precision", precision) != precision:
            print(f"Note: until here this run was computed in {state['precision']}, from here on in {precision}")
        ranks = state.get("ranks", 1)
        if ranks != this_rank().size:
            print(f"Note: until here {ranks} rank(s) computed this run, from here on {this_rank().size}")
        then, now = (yaml.safe_load(config)["MODEL"] for config in (state["config"], self.about["config"]))
        same = all(then[key] == now[key] for key in ("TEXT_CHUNK", "TEXT_MEMORY_MB"))
        if same and ranks == this_rank().size:
            chunks = state["text_chunk"]  # older versions kept rank 0's alone
            own = chunks[this_rank().rank] if isinstance(chunks, list) and len(chunks) == ranks else chunks
            if isinstance(own, int):
                self.model.text_encoder.training_chunk = own
        if self.average is not None:
            self.average.restore(state["average"], self.model.trainable())
        float(state["best_result"]), float(state.get("batches_done", 0))
        checkpoints.set_random_state(state["random"])

    def _check_optimiser(self, rates: Sequence[float]) -> None:
        """Raises ValueError where its rates are not the schedule's, or what it remembers does not fit the parameters."""
        for rate, group in zip(rates, self.optimiser.param_groups, strict=True):
            if not math.isclose(rate, group["lr"], rel_tol=1e-6):
                raise ValueError(f"the learning rate is {group['lr']}, the schedule's {rate}")
            for p in group["params"]:
                for name, kept in self.optimiser.state[p].items():
                    if isinstance(kept, torch.Tensor) and kept.ndim and (
                        kept.shape != p.shape or not kept.is_floating_point() or not kept.isfinite().all()
                    ):  # fmt: skip
                        raise ValueError(f"the optimiser's {name} does not fit a parameter of shape {tuple(p.shape)}")


def refuse_other(ours: dict[str, Any], state: Mapping[str, Any], path: Path, keys: tuple[str, ...]) -> None:
    """Raises ValueError when a checkpoint names another trainer, dataset, ... than `ours`; one that names none passes."""
    theirs = state.get("identity", {})
    differing = [key for key in keys if key in theirs and theirs[key] != ours[key]]
    if differing:
        what = "; ".join(f"{key} there {_short(theirs[key])}, here {_short(ours[key])}" for key in differing)
        raise ValueError(f"{path} belongs to something else: {what}")


def note_other_settings(state: Mapping[str, Any], node: Mapping[str, Any], key: str, names: tuple[str, ...]) -> None:
    """Notes if testing uses other settings than training. This can be intended, but should be visible."""
    theirs = yaml.safe_load(state.get("config") or "{}").get("TRAINER", {}).get(key, {})
    for name in names:
        if name in theirs and theirs[name] != node[name]:
            print(f"Note: TRAINER.{key}.{name} was {theirs[name]!r} in training and is {node[name]!r} here")


def trained_with(state: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of the training that made it."""
    identity = state.get("identity", {})
    cfg = yaml.safe_load(state.get("config") or "{}")
    dataset, optim = cfg.get("DATASET", {}), cfg.get("OPTIM", {})
    found = {
        "dataset": identity.get("dataset"),
        "seed": cfg.get("SEED"),
        "shots": dataset.get("NUM_SHOTS"),
        "subsample_classes": dataset.get("SUBSAMPLE_CLASSES"),
        "epochs": state.get("epoch"),
        "epochs_planned": optim.get("MAX_EPOCH"),
        "within_an_epoch": state.get("batches_done"),
        "text_classes": identity.get("text_classes"),
        "template_groups": identity.get("template_groups"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)} ({', '.join(map(str, value[:3]))}{', ...' if len(value) > 3 else ''})"
    return str(value)[:60]
