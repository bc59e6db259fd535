"""What all methods share: data, backbone, precision, the training loop, checkpoints, evaluation.

A method subclasses PromptTrainer, says how its model is built (build_model) and what its loss is (compute_loss).
It runs on Dassl itself and on compat/dassl, prints Dassl's log lines, draws Dassl's random numbers.
"""

import contextlib
import datetime
import difflib
import math
import os
import platform
import signal
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from dassl.data.datasets import build_dataset
from dassl.engine import TrainerX
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import AverageMeter, MetricMeter
from torch import nn
from tqdm import tqdm
from yacs.config import CfgNode

from . import DASSL_IN_USE, checkpoints
from .loading import build_data_manager
from .parts.backbone import backbone_file, check_input_size, file_sha256, load_clip

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
RESUME_ME = 75  # exit status of a run that was asked to stop and can be continued (EX_TEMPFAIL)


class AskedToStop(SystemExit):
    """The run ends early, with everything saved that is needed to go on."""


def declare(node: CfgNode, **defaults: Any) -> None:
    """Adds keys that `node` lacks, below it in nested dictionaries; existing values stay."""
    for key, value in defaults.items():
        if isinstance(value, dict):
            if key not in node:
                node[key] = CfgNode()
            declare(node[key], **value)
        elif key not in node:
            node[key] = value


def from_template_file(file: str, dataset: str) -> Any:
    """What configs/templates/`file` says of a dataset, by registry name. Raises ValueError if it says nothing."""
    known = yaml.safe_load((CONFIGS / "templates" / file).read_text())
    if dataset not in known:
        near = difflib.get_close_matches(dataset, known, n=1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise ValueError(f"configs/templates/{file} has no templates for dataset {dataset}{hint} Add them there")
    return known[dataset]


def template_groups(dataset: str) -> list[list[str]]:
    """The template groups of a dataset, by registry name."""
    return from_template_file("template_groups.yaml", dataset)


class PromptTrainer(TrainerX):
    """A Dassl trainer for methods that learn prompts (or nothing) on a frozen CLIP."""

    KEY = ""  # the node below cfg.TRAINER
    TEST_SETTINGS: tuple[str, ...] = ()  # its keys that bear on testing but on no tensor's shape
    trains = True
    _asked_by = 0  # the signal that asked this run to stop
    model: Any
    optim: Any
    sched: Any
    train_loader_x: Any
    val_loader: Any
    test_loader: Any

    @staticmethod
    def add_config(cfg: CfgNode) -> None:
        """Declares the settings that every method has."""
        declare(
            cfg,
            DATASET={
                "SUBSAMPLE_CLASSES": "all",  # all, base or new
                "FOLDER": "",  # of FolderDataset
                "SPLIT_FILE": "",  # of FolderDataset, in CoOp's format
            },
            DATALOADER={"CACHE_MB": 2048},  # decoded training pictures kept in memory, at most
            MODEL={"TEXT_ENCODER": "fast", "TEXT_CHUNK": 0, "TEXT_MEMORY_MB": 0},  # see parts/text_encoder.py
            TRAIN={"CHECKPOINT_MINUTES": 10.0},  # also between epochs' ends; 0: never
            DETERMINISTIC=False,  # ask torch for repeatable CUDA kernels
        )

    # --- what a method defines -----------------------------------------------------------------------------------------

    def compute_loss(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of one batch, and further scalars for the log."""
        raise TypeError(f"{type(self).__name__} has nothing to train")

    def adopt(self, identity: dict[str, Any]) -> None:
        """Hook: take over from a checkpoint's identity what the model is built from. May raise ValueError."""

    def convert_state(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Hook: rename or drop tensors of checkpoints written by other projects.

        CoOp and CoCoOp also store the embeddings of the class names, which belong to the classes and are made anew.
        """
        return {name: value for name, value in state.items() if name not in ("token_prefix", "token_suffix")}

    # --- building ------------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> CfgNode:
        return self.cfg.TRAINER[self.KEY]

    def check_cfg(self, cfg: CfgNode) -> None:
        self.cfg = cfg
        self.precision = getattr(self.settings, "PREC", "fp32") if self.KEY else "fp32"
        if self.precision not in ("fp32", "fp16", "amp", "bf16"):
            raise ValueError(f'TRAINER.{self.KEY}.PREC is "{self.precision}": use fp32, fp16, amp or bf16')
        on_gpu = torch.cuda.is_available() and cfg.USE_CUDA
        if self.precision in ("fp16", "amp") and not on_gpu:
            warnings.warn(f"PREC {self.precision} needs a GPU; computing in fp32 instead", stacklevel=2)
            self.precision = "fp32"

    def build_data_loader(self) -> None:
        dm = self.dm = build_data_manager(self.cfg)
        self.train_loader_x, self.train_loader_u = dm.train_loader_x, dm.train_loader_u
        self.val_loader, self.test_loader = dm.val_loader, dm.test_loader
        self.num_classes, self.num_source_domains = dm.num_classes, dm.num_source_domains
        self.lab2cname = dm.lab2cname
        self.classnames: list[str] = list(dm.dataset.classnames)
        self.all_classnames = self._all_classnames()

    def _all_classnames(self) -> list[str]:
        """All class names of the dataset, the training classes first, each part in label order."""
        names = getattr(self.dm.dataset, "all_class_names", None)
        if names is None and self.cfg.DATASET.SUBSAMPLE_CLASSES != "all":  # CoOp's own datasets do not keep them
            cfg = self.cfg.clone()
            cfg.defrost()
            cfg.DATASET.SUBSAMPLE_CLASSES = "all"
            names = build_dataset(cfg).classnames
        own = set(self.classnames)
        return self.classnames + [name for name in names or [] if name not in own]

    def load_clip(self) -> nn.Module:
        """The backbone in the precision asked for; its file's hash becomes part of the run's identity."""
        name = self.cfg.MODEL.BACKBONE.NAME
        print(f"Loading CLIP (backbone: {name})")
        path = backbone_file(name)  # once: for a model's name, clip reads and hashes the whole file
        model = load_clip(str(path))
        check_input_size(model, self.cfg.INPUT.SIZE)
        self.backbone_sha256 = file_sha256(path)
        if self.precision == "fp16":
            from clip.model import convert_weights

            convert_weights(model)
        return model.to(self.device)

    @property
    def encoder_options(self) -> dict[str, Any]:
        return {"text_encoder": self.cfg.MODEL.TEXT_ENCODER, "text_chunk": self.cfg.MODEL.TEXT_CHUNK}

    def finish_model(self, slow: list[nn.Parameter] | None = None, slow_lr: float = 1.0) -> None:
        """Moves self.model to the device and gives what it learns to optimiser and schedule.

        `slow` parameters learn at `slow_lr` times the rate. The log's rate is that of the first group, as in LASP.
        """
        self.model.to(self.device)
        text_encoder = getattr(self.model, "text_encoder", None)
        if text_encoder is not None:
            text_encoder.memory_budget = self.cfg.MODEL.TEXT_MEMORY_MB * 2**20
        slow = slow or []
        is_slow = {id(p) for p in slow}
        others = [p for p in self.model.learned().values() if id(p) not in is_slow]
        groups: list[dict] = [{"params": others}]
        if slow:
            groups.insert(0, {"params": slow, "lr": self.cfg.OPTIM.LR * slow_lr})
        self.optim = build_optimizer(None, self.cfg.OPTIM, param_groups=groups)
        self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
        self.scaler = torch.amp.GradScaler("cuda", enabled=self.precision == "amp")
        self.register_model(checkpoints.FOLDER, self.model, self.optim, self.sched)
        count = sum(p.numel() for p in self.model.learned().values())
        print(f"Training {count:,} parameters in {self.precision}")

    def rebuild_model(self) -> None:
        for table in (self._models, self._optims, self._scheds):
            table.clear()
        self.build_model()

    # --- one step ------------------------------------------------------------------------------------------------------

    def autocast(self) -> contextlib.AbstractContextManager:
        if self.precision == "amp":
            return torch.autocast("cuda", dtype=torch.float16)
        if self.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        images, labels = batch["img"], batch["label"]
        if isinstance(images, list):  # DATALOADER.K_TRANSFORMS views of each picture
            labels = labels.repeat(len(images))
            images = torch.cat(images)
        return images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)

    def parse_batch_test(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        return batch["img"].to(self.device, non_blocking=True), batch["label"].to(self.device, non_blocking=True)

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        images, labels = self.parse_batch_train(batch)
        with self.autocast():
            loss, shown = self.compute_loss(images, labels)
        self.optim.zero_grad()
        self.scaler.scale(loss).backward()
        if self.settings.get("GRAD_CLIP", 0.0) > 0:
            self.scaler.unscale_(self.optim)
            nn.utils.clip_grad_norm_(self.model.learned().values(), self.settings.GRAD_CLIP)
        self.scaler.step(self.optim)
        self.scaler.update()
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return {"loss": loss.detach(), **{name: value.detach() for name, value in shown.items()}}

    # --- the loop ------------------------------------------------------------------------------------------------------

    def train(self) -> None:  # type: ignore[override]
        with self._listening():
            super().train()

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """While inside, SIGTERM, SIGINT and SIGUSR1 (SLURM's warning) ask the run to stop at the next step."""
        self._asked_by = 0

        def note(number: int, frame: Any) -> None:
            self._asked_by = number

        watched = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
        before = {number: signal.signal(number, note) for number in watched}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop_if_asked(self, save: bool) -> None:
        if not self._asked_by:
            return
        if save:
            self._save_between_batches()
        name = signal.Signals(self._asked_by).name
        print(f"Stopped by {name}; the same command continues this run (exit status {RESUME_ME})")
        raise AskedToStop(RESUME_ME)

    def before_train(self) -> None:
        self._resume_at: dict[str, Any] | None = None
        self.train_loader_x.dataset.keep()
        super().before_train()
        self._last_save = time.monotonic()

    def run_epoch(self) -> None:
        self.set_model_mode("train")
        self._losses, batch_time, data_time = MetricMeter(), AverageMeter(), AverageMeter()
        self.num_batches = len(self.train_loader_x)
        resume, self._resume_at = self._resume_at, None
        if resume:
            checkpoints.set_random_state(resume["random_at_epoch_start"])
        self._random_at_epoch_start = checkpoints.random_state()
        batches = iter(self.train_loader_x)
        first = 0
        if resume:
            first = resume["batches_done"]
            self._skip(batches, first)
            checkpoints.set_random_state(resume["random"])
            for name, (value, total, count) in resume["meters"].items():
                meter = self._losses.meters[name]
                meter.val, meter.sum, meter.count, meter.avg = value, total, count, total / count
        pending: list[dict[str, torch.Tensor]] = []
        frequency, end = self.cfg.TRAIN.PRINT_FREQ, time.time()
        for self.batch_idx in range(first, self.num_batches):
            batch = next(batches)
            data_time.update(time.time() - end)
            pending.append(self.forward_backward(batch))
            is_last = self.batch_idx + 1 == self.num_batches
            prints = (self.batch_idx + 1) % frequency == 0 or self.num_batches < frequency
            if prints or is_last or self.device.type == "cpu":  # on a GPU, reading a loss waits for the device
                self._take_in(pending)
            batch_time.update(time.time() - end)
            if prints:
                self._print_progress(batch_time, data_time)
            if not is_last and self._save_is_due():
                self._take_in(pending)
                self._stop_if_asked(save=True)
                self._save_between_batches()
            end = time.time()

    def _save_is_due(self) -> bool:
        minutes = self.cfg.TRAIN.CHECKPOINT_MINUTES
        return bool(self._asked_by) or (minutes > 0 and time.monotonic() - self._last_save > 60 * minutes)

    def _skip(self, batches: Any, count: int) -> None:
        """Passes over batches that were trained on before an interruption, drawing what they drew."""
        if self.train_loader_x.num_workers == 0:
            for _ in range(count):
                next(batches._sampler_iter)  # pictures are augmented in this process, whose state is restored after
        else:
            for _ in range(count):
                next(batches)  # the workers' own generators have to move on

    def _take_in(self, pending: list[dict[str, torch.Tensor]]) -> None:
        """Reads the losses of the steps since the last time, in one go, into meters and tensorboard."""
        last = self.batch_idx
        for ago, summary in zip(reversed(range(len(pending))), pending, strict=True):
            step = self.epoch * self.num_batches + last - ago
            values = {name: float(value) for name, value in summary.items()}
            if not math.isfinite(values["loss"]):
                self._report_bad_loss(last - ago, values)
            self._losses.update(values)
            for name, meter in self._losses.meters.items():
                self.write_scalar(f"train/{name}", meter.avg, step)
            self.write_scalar("train/lr", self.get_current_lr(), step)
        pending.clear()

    def _report_bad_loss(self, batch_idx: int, values: dict[str, float]) -> None:
        path = Path(self.output_dir) / "bad_step" / "state.pth.tar"
        checkpoints.save(path, self._state(self.epoch, None) | {"losses": values, "batch": batch_idx})
        shown = ", ".join(f"{name} {value}" for name, value in values.items())
        raise FloatingPointError(
            f"loss is not finite at epoch {self.epoch + 1}, batch {batch_idx + 1} ({shown}); the weights are in {path}: "
            "lower OPTIM.LR, or use PREC fp32 or bf16"
        )

    def _print_progress(self, batch_time: AverageMeter, data_time: AverageMeter) -> None:
        left = (self.max_epoch - self.epoch) * self.num_batches - self.batch_idx - 1
        print(
            f"epoch [{self.epoch + 1}/{self.max_epoch}] batch [{self.batch_idx + 1}/{self.num_batches}] "
            f"time {batch_time.val:.3f} ({batch_time.avg:.3f}) data {data_time.val:.3f} ({data_time.avg:.3f}) "
            f"{self._losses} lr {self.get_current_lr():.4e} eta {datetime.timedelta(seconds=int(batch_time.avg * left))}",
            flush=True,
        )

    def after_epoch(self) -> None:
        super().after_epoch()
        if self.epoch + 1 < self.max_epoch:
            if self._save_is_due():
                self.save_model(self.epoch, self.output_dir)
            self._stop_if_asked(save=False)

    # --- checkpoints ---------------------------------------------------------------------------------------------------

    def identity(self) -> dict[str, Any]:
        """What tells this run from others; stored in checkpoints and results."""
        return {
            "trainer": self.cfg.TRAINER.NAME,
            "dataset": self.cfg.DATASET.NAME,
            "classnames": list(self.classnames),
            "backbone": self.cfg.MODEL.BACKBONE.NAME,
            "backbone_sha256": getattr(self, "backbone_sha256", ""),
            "versions": {"python": platform.python_version(), "torch": str(torch.__version__), "dassl": DASSL_IN_USE},
        }

    def _state(self, epoch: int, val_result: float | None) -> dict[str, Any]:
        return {
            "state_dict": {name: p.detach().cpu().clone() for name, p in self.model.learned().items()},
            "epoch": epoch,
            "optimizer": self.optim.state_dict(),
            "scaler": self.scaler.state_dict(),
            "val_result": val_result,
            "best_result": float(self.best_result),
            "random": checkpoints.random_state(),
            "identity": self.identity(),
            "config": self.cfg.dump(),
            "precision": self.precision,
            "text_chunk": getattr(getattr(self.model, "text_encoder", None), "training_chunk", 0),
        }

    def save_model(
        self, epoch: int, directory: str, is_best: bool = False, val_result: Any = None, model_name: str = ""
    ) -> None:
        if not self.trains:
            return
        name = model_name or f"model.pth.tar-{epoch + 1}"
        folder = Path(directory) / checkpoints.FOLDER
        for target in [name, "model-best.pth.tar"] if is_best else [name]:
            checkpoints.save(folder / target, self._state(epoch + 1, val_result))
            print(f"Checkpoint saved to {folder / target}")
        self._last_save = time.monotonic()
        (folder / "model-interrupted.pth.tar").unlink(missing_ok=True)

    def _save_between_batches(self) -> None:
        path = Path(self.output_dir) / checkpoints.FOLDER / "model-interrupted.pth.tar"
        meters = {name: [m.val, m.sum, m.count] for name, m in self._losses.meters.items()}
        progress = {
            "batches_done": self.batch_idx + 1,
            "random_at_epoch_start": self._random_at_epoch_start,
            "meters": meters,
        }
        checkpoints.save(path, self._state(self.epoch, None) | progress)
        print(f"Checkpoint saved to {path}")
        self._last_save = time.monotonic()

    def resume_model_if_exist(self, directory: str) -> int:
        path = checkpoints.latest(Path(directory)) if self.trains else None
        if path is None:
            print("No checkpoint found, train from scratch")
            return 0
        print(f"Found checkpoint at {directory} (will resume training)")
        state = checkpoints.load(path)
        if "random" not in state:
            raise ValueError(f"{path} was not written by this project and can be evaluated, but not resumed")
        self._refuse_other(state["identity"], path, ("trainer", "dataset", "classnames", "backbone_sha256"))
        checkpoints.copy_into(self.model.learned(), state["state_dict"], path)
        for _ in range(state["epoch"]):  # drives the live optimiser's rates to where they were
            self.sched.step()
        self.optim.load_state_dict(state["optimizer"])
        if state["scaler"]:  # empty when the run began where PREC amp had become fp32
            self.scaler.load_state_dict(state["scaler"])
        if state.get("precision", self.precision) != self.precision:
            print(f"Note: until here this run was computed in {state['precision']}, from here on in {self.precision}")
        self.best_result = state["best_result"]
        then = yaml.safe_load(state["config"])["MODEL"]
        same_limits = all(then[key] == self.cfg.MODEL[key] for key in ("TEXT_CHUNK", "TEXT_MEMORY_MB"))
        if same_limits and getattr(self.model, "text_encoder", None) is not None:
            self.model.text_encoder.training_chunk = state["text_chunk"]
        if "batches_done" in state:
            self._resume_at = state
            print(f"Continuing epoch {state['epoch'] + 1} after batch {state['batches_done']}")
        checkpoints.set_random_state(state["random"])
        print(f"Previous epoch: {state['epoch']}")
        return state["epoch"]

    def _refuse_other(self, theirs: dict[str, Any], path: Path, keys: tuple[str, ...]) -> None:
        ours = self.identity()
        differing = [key for key in keys if key in theirs and theirs[key] != ours[key]]
        if differing:
            what = "; ".join(f"{key} there {_short(theirs[key])}, here {_short(ours[key])}" for key in differing)
            raise ValueError(f"{path} belongs to something else: {what}")

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Loads trained tensors for evaluation: of `epoch`, else the best on validation, else the last saved.

        Class names may differ from those of training, prompts being shared by all classes; trainer and backbone may not.
        """
        if not self.trains:
            return
        if not directory:
            raise ValueError("nothing to evaluate: give the folder of a trained run with --model-dir")
        folder = Path(directory) / checkpoints.FOLDER
        best, last = folder / "model-best.pth.tar", checkpoints.latest(Path(directory))
        path = folder / f"model.pth.tar-{epoch}" if epoch is not None else best if best.is_file() else last or best
        state = checkpoints.load(path)
        identity = state.get("identity", {})
        self._refuse_other(identity, path, ("trainer", "backbone_sha256"))
        self.adopt(identity)
        self._note_other_settings(state)
        tensors = {key.removeprefix("module."): value for key, value in state["state_dict"].items()}
        checkpoints.copy_into(self.model.learned(), self.convert_state(tensors), path)
        self.trained_on = identity
        print(f'Loading weights to {checkpoints.FOLDER} from "{path}" (epoch = {state["epoch"]})')

    def _note_other_settings(self, state: dict[str, Any]) -> None:
        """Testing with other settings than training's can be meant, but should not go unseen."""
        theirs = yaml.safe_load(state.get("config") or "{}").get("TRAINER", {}).get(self.KEY, {})
        for key in self.TEST_SETTINGS:
            if key in theirs and theirs[key] != self.settings[key]:
                print(
                    f"Note: TRAINER.{self.KEY}.{key} was {theirs[key]!r} in training and is {self.settings[key]!r} here"
                )

    # --- evaluation ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluates, prints Dassl's result block, keeps all metrics in self.results, returns the accuracy in percent."""
        self.set_model_mode("eval")
        self.evaluator.reset()
        split = split or self.cfg.TEST.SPLIT
        use_val = split == "val" and self.val_loader is not None
        split, loader = ("val", self.val_loader) if use_val else ("test", self.test_loader)
        print(f"Evaluate on the *{split}* set")
        begin = time.monotonic()
        for batch in tqdm(loader, desc="Evaluating", leave=False, disable=None):
            images, labels = self.parse_batch_test(batch)
            with self.autocast():
                logits = self.model_inference(images)
            self.evaluator.process(logits, labels)
            if split == "test":  # validation comes before its epoch is saved: after_epoch stops then
                self._stop_if_asked(save=False)
        self.results = dict(self.evaluator.evaluate())
        self.test_seconds = time.monotonic() - begin
        for key, value in self.results.items():
            self.write_scalar(f"{split}/{key}", value, self.epoch)
        return self.results["accuracy"]


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)} ({', '.join(map(str, value[:3]))}{', ...' if len(value) > 3 else ''})"
    return str(value)[:60]


def set_deterministic() -> None:
    """Repeatable kernels where torch has them; the others raise no error but are named in torch's warning."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
