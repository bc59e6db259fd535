"""The base trainer of all methods: a Dassl trainer that builds data, backbone and model, and delegates the rest.

A method subclasses PromptTrainer, declares its options (options.py), says how its model is built (build_model) and what
its loss is (compute_loss). It runs on Dassl itself and on compat/dassl, prints Dassl's log lines, draws its random numbers.
"""

import contextlib
import math
import platform
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import PIL
import torch
from dassl.data.datasets import build_dataset
from dassl.engine import TRAINER_REGISTRY, TrainerX
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from ...methods import methods
from ...options import Method, Options
from ..clip.backbones import Backbone, source_of
from ..clip.losses import accuracy
from ..clip.preloaded import opened
from ..clip.visual_tower import encode_pictures
from ..loading.contents import contents_for
from ..loading.feature_cache import FrozenFeatures, is_fixed, remembering
from ..loading.loaders import Pictures, Slices, build_data_manager, follow_backbone, in_turns
from ..loading.run_caches import RunCaches
from ..ranks.collectives import this_rank
from ..runs.identity import Identity, content_fingerprint, fingerprint, material_settings
from ..runs.mistakes import Mistake
from ..settings import dassl_support
from ..settings.configure import flat
from ..settings.errors import believing
from ..settings.templates import template_groups
from . import checkpoints
from .averaging import EpochAverage
from .classes import all_classnames, look_at_names, note_doubles
from .epoch import Steps, is_finite
from .evaluation import Logits, evaluate, validated
from .head import adopt_head, fit_head
from .resuming import INTERRUPTED, Training, note_other_settings, refuse_other, trained_with
from .schedule import before_any_step, optimiser_and_schedule
from .step_graph import StepGraph
from .step_log import StepLog
from .stopping import StopSignals

dassl_support.mend_schedulers()

Losses = tuple[torch.Tensor | tuple[torch.Tensor, torch.Tensor], dict[str, torch.Tensor]]


def register(trainer: type) -> type:
    """Makes a trainer known to Dassl by its name, once: this package may be imported under two names, as mocoop too."""
    known = trainer.__name__ in TRAINER_REGISTRY.registered_names()
    if not known or _file_of(TRAINER_REGISTRY.get(trainer.__name__)) != _file_of(trainer):
        TRAINER_REGISTRY.register(trainer)
    return trainer


def _file_of(trainer: Any) -> str | None:
    return sys.modules[trainer.__module__].__file__


class PromptTrainer(TrainerX):
    """A Dassl trainer for methods that learn prompts (or nothing) on a frozen CLIP."""

    TEST_SETTINGS: tuple[str, ...] = ()  # its options that bear on testing but on no tensor's shape
    templates_called: str | None = None  # in checkpoints, where templates_of's bear on what is trained
    contents: dict[str, str] = {}  # of the pictures of each part, as its run's identity has it
    may_record = True  # a step as a CUDA graph, which never waits for the host
    average: EpochAverage | None = None  # over epochs, where a method sets one in build_model
    step_log: StepLog | None = None  # of a run that trains, on the first rank
    is_trained_here = True  # and not only evaluated; then a temperature is fitted to the validation split
    model: Any
    optim: Any
    sched: Any
    train_loader_x: Any
    val_loader: Any
    test_loader: Any

    @classmethod
    def method(cls) -> Method:
        """Its record."""
        return methods()[cls.__name__]

    # --- what a method defines -----------------------------------------------------------------------------------------

    def compute_loss(self, images: torch.Tensor, labels: torch.Tensor, *drawn: Any, **_: Any) -> Losses:
        """The loss of one batch, and further scalars for the log; drawn: what drawn() gave for this step, if anything.

        The default is cross-entropy. Raises TypeError for a method that takes no steps.

        Two losses: what is trained gets the first one's gradient, once combine() has seen that of the second beside it.

        On a GPU it is recorded and replayed (step_graph.py), so any value that changes from step to step must be a
        tensor.
        """
        if not self.method().takes_steps:
            raise TypeError(f"{type(self).__name__} has nothing to train")
        logits_BC = self.model(images)
        return F.cross_entropy(logits_BC, labels), {"acc": accuracy(logits_BC, labels)}

    def combine(self, grads: list[torch.Tensor], guides: list[torch.Tensor]) -> None:
        """Hook: changes `grads` of the loss in place by `guides`, those of the second loss, parameter by parameter."""

    def drawn(self) -> tuple[torch.Tensor, ...]:
        """Hook: the random tensors of one step, always of the same shapes."""
        return ()

    def trained(self) -> None:
        """Hook: behind the last step, or at once where none is taken, before what was made is saved and tested."""
        if self.model.head is not None:
            fit_head(self)

    def asked_classnames(self) -> list[str]:
        """Hook: the classes that the model tells apart."""
        return self.classnames

    def adopt(self, identity: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        """Hook: take the values that the model is built from out of a checkpoint's identity and tensors. May raise
        ValueError."""

    def restored(self, state: dict[str, Any]) -> None:
        """Hook: take what a method keeps beside tensors, in _about(), out of the checkpoint that is resumed."""

    def convert_state(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Hook: rename or drop tensors of checkpoints written by other projects.

        CoOp and CoCoOp also store the embeddings of the class names, which belong to the classes and are made anew.
        """
        return {name: value for name, value in state.items() if name not in ("token_prefix", "token_suffix")}

    @classmethod
    def templates_of(cls, cfg: CfgNode) -> list | None:
        """Hook: the hard templates that a configuration means, wherever they come from; part of the run's identity."""
        return None

    # --- building ------------------------------------------------------------------------------------------------------

    def check_cfg(self, cfg: CfgNode) -> None:
        self.cfg, self.seconds_before, self._begun = cfg, 0.0, time.monotonic()
        follow_backbone(cfg)
        own = self.method()
        if cfg.DATASET.SUBSAMPLE_CLASSES in ("new", "joint") and not own.knows_new_classes:
            raise ValueError(
                f"{own.title} knows only the classes it was made for: "
                f"SUBSAMPLE_CLASSES {cfg.DATASET.SUBSAMPLE_CLASSES} has others"
            )
        self.head = own.head(cfg.MODEL.HEAD.NAME)
        if (self.head or "none") not in own.heads:
            may = f"can have {' or '.join(own.heads)}"
            raise ValueError(f"MODEL.HEAD.NAME is {self.head or 'none'}, and {own.title} {may}: leave it out")
        if self.head and cfg.TEST.FINAL_MODEL == "best_val" and own.takes_steps:
            raise ValueError(
                f"the head {self.head} is fitted to the last epoch's model: use TEST.FINAL_MODEL last_step"
            )
        key = own.options.KEY
        self.options: Any = own.options.of(cfg.TRAINER[key]) if key else Options()
        self.precision = self.asked_precision = getattr(self.options, "prec", "fp32")
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
        self.caches = RunCaches(self.cfg, self.device)
        resized = self.test_loader.dataset.resized
        if resized is not None:
            self.caches.add("resized", resized.cache)
        self.are_own = self.cfg.DATASET.NAME == "FolderDataset"  # people's own pictures
        if self.are_own:
            note_doubles(dm.dataset, self.cfg)
        self.classnames: list[str] = list(dm.dataset.classnames)
        self.all_classnames = all_classnames(dm.dataset, self.cfg, self.classnames)
        wanted = {"TEST.SPLIT": self.cfg.TEST.SPLIT == "val", "TEST.FINAL_MODEL": self.method().takes_steps and
                  self.cfg.TEST.FINAL_MODEL == "best_val"}  # fmt: skip
        if self.val_loader is None and any(wanted.values()):
            name = next(key for key, asked in wanted.items() if asked)
            value = {"TEST.SPLIT": "val", "TEST.FINAL_MODEL": "best_val"}[name]
            raise ValueError(f"{name} is {value}, but {self.cfg.DATASET.NAME} has no validation pictures: use another")

    def plan_epochs(self, epochs: int) -> None:
        """The run takes so many, whatever OPTIM.MAX_EPOCH said."""
        self.cfg.defrost()
        self.cfg.OPTIM.MAX_EPOCH = self.max_epoch = epochs
        self.cfg.freeze()

    def load_clip(self) -> Backbone:
        """The backbone in the precision asked for; what it is becomes part of the run's identity."""
        name = self.cfg.MODEL.BACKBONE.NAME
        print(f"Loading CLIP (backbone: {name})")
        source = source_of(name)
        backbone = opened(source)
        size = backbone.preprocessing.size
        if tuple(self.cfg.INPUT.SIZE) != size:
            raise ValueError(
                f"INPUT.SIZE is {tuple(self.cfg.INPUT.SIZE)}, but this CLIP takes {size[0]} x {size[1]} pixels: "
                f'leave it out, or set INPUT.SIZE "{size}"'
            )
        self._backbone = {"backbone_family": source.family, "backbone_architecture": source.architecture,
                          "backbone_weights": source.weights, "backbone_sha256": source.digest()}  # fmt: skip
        self._is_fast = self.cfg.MODEL.TEXT_ENCODER == "fast" and backbone.causal_tower() is not None
        print(f"Text encoder: {'each token once' if self._is_fast else 'every prompt whole'}")
        if self.method().reads_names:
            look_at_names(self.classnames, backbone, self.are_own)
        if self.precision == "fp16":
            backbone.halve()
        backbone.model.to(self.device)
        texts = self.caches.of_backbone("texts", self._backbone["backbone_sha256"], str(backbone.text_dtype))
        backbone.remember = remembering(texts, self.device)  # type: ignore[method-assign, assignment]
        return backbone

    def frozen_features(self, backbone: Backbone, transform: Any) -> FrozenFeatures:
        """Features of pictures by the picture encoder as it was loaded."""

        def encode(images: torch.Tensor) -> torch.Tensor:
            with torch.no_grad(), self.autocast():
                return encode_pictures(backbone, images)

        dtype = next(backbone.visual.parameters()).dtype
        how = f"{self.precision}, {dtype}, {transform!r}"
        cache = self.caches.of_backbone("features", self._backbone["backbone_sha256"], how)
        return FrozenFeatures(cache, encode, self.parse_batch_test)

    @property
    def sees_features(self) -> bool:
        """Whether this run's model takes features of a frozen encoder instead of pictures."""
        return bool(getattr(self.model, "from_features", False)) and not self.model.tuned

    @property
    def encoder_options(self) -> dict[str, Any]:
        model = self.cfg.MODEL
        return {"text_encoder": model.TEXT_ENCODER, "text_chunk": model.TEXT_CHUNK,
                "text_memory": model.TEXT_MEMORY_MB * 2**20}  # fmt: skip

    def finish_model(self, slower: list[nn.Parameter] | None = None, times: float = 1.0, restart: int = 0) -> None:
        """Moves self.model to the device and gives its trainable parameters to the optimiser and schedule.

        `slower` parameters learn at `times` the rate. The log's rate is that of the first group, as in LASP. restart:
        steps, or epochs, after which the schedule begins anew; 0: never.
        """
        self.put_head()
        self.model.to(self.device)
        if self.cfg.TRAIN.COMPILE:
            self.model.compile_training()
        slower = slower or []
        is_slower = {id(p) for p in slower}
        others = [p for p in self.model.trainable().values() if id(p) not in is_slower]
        groups: list[dict] = [{"params": others}]
        if slower:
            groups.insert(0, {"params": slower, "lr": self.cfg.OPTIM.LR * times})
        self.optim, self.sched = optimiser_and_schedule(self.cfg.OPTIM, groups, self.planned_moves(), restart)
        self.scaler = torch.amp.GradScaler("cuda", enabled=self.precision == "amp")
        self.register_model(checkpoints.FOLDER, self.model, self.optim, self.sched)
        self._guides: list[torch.Tensor] = []
        self.record_anew()
        fast = self.cfg.MODEL.TEXT_ENCODER == "fast" and self.model.backbone.causal_tower() is not None
        if fast != self._is_fast:
            print("Text encoder: every prompt whole, since the method changes the tower")
        count = sum(p.numel() for p in self.model.trainable().values())
        print(f"Training {count:,} parameters in {self.precision}")

    def planned_moves(self) -> int:
        """Hook: moves of the schedule, with OPTIM.SCHEDULE step, that its plan counts as an epoch."""
        return len(self.train_loader_x)

    def record_anew(self) -> None:
        """Steps are recorded from here on, where they can be; call it when they change."""
        may_record = self.may_record and not this_rank().several
        self._graph: StepGraph | None = None
        if self.device.type == "cuda" and self.cfg.TRAIN.CUDA_GRAPH and may_record:
            self._graph = StepGraph(self._backward, list(self.model.trainable().values()))

    def rebuild_model(self) -> None:
        for table in (self._models, self._optims, self._scheds):
            table.clear()
        self.build_model()

    # --- one step ------------------------------------------------------------------------------------------------------

    @property
    def half(self) -> torch.dtype | None:
        """What autocast turns numbers into; None where it does not."""
        return {"amp": torch.float16, "bf16": torch.bfloat16}.get(self.precision)

    def set_model_mode(self, mode: str = "train", names: str | list[str] | None = None) -> None:
        """Also stores what is frozen as autocast uses it: from here on, all work is done under autocast. What is encoded
        once, before, is encoded with the weights as they were read."""
        if self.half is not None and self.method().takes_steps:
            self.model.backbone.store_frozen(self.half)
        super().set_model_mode(mode, names)

    def autocast(self) -> contextlib.AbstractContextManager:
        if self.half is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.half)

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        images, labels = batch["img"], batch["label"]
        if isinstance(images, list):  # DATALOADER.K_TRANSFORMS views of each picture
            labels = labels.repeat(len(images))
            images = torch.cat(images)
        return self.as_numbers(images, self.train_loader_x), labels.to(self.device, non_blocking=True)

    def parse_batch_test(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        if "fresh" in batch:
            self.test_loader.dataset.resized.keep(batch)
        return self.as_numbers(batch["img"], self.test_loader), batch["label"].to(self.device, non_blocking=True)

    def as_numbers(self, images: torch.Tensor, loader: DataLoader) -> torch.Tensor:
        return loader.dataset.as_numbers(images.to(self.device, non_blocking=True))  # type: ignore[attr-defined]

    def take_step(self) -> None:
        """One step of the optimiser from the gradients that are there, scaled back and clipped."""
        if self.largest_gradient() > 0:
            self.scaler.unscale_(self.optim)
            nn.utils.clip_grad_norm_(self.model.trainable().values(), self.largest_gradient())
        self.scaler.step(self.optim)
        self.scaler.update()

    def largest_gradient(self) -> float:
        """The norm to which gradients are clipped; 0: no clipping. The default is that of LASP's and MoCoOp's code."""
        asked = getattr(self.options, "grad_clip", 0.0)
        if asked is None:
            return 1.0 if self.asked_precision == "amp" else 0.0
        return asked

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        images, labels = self.parse_batch_train(batch)
        self.optim.zero_grad()
        shown = (self._graph or self._backward)(images, labels, *self.drawn())
        if self._graph is not None and self._graph.trouble:
            print(f"Note: steps are computed kernel by kernel, since they cannot be recorded: {self._graph.trouble}")
            self._graph = None
        grads = [p.grad for p in self.model.trainable().values() if p.grad is not None]
        several = self._guides if this_rank().several else []  # of one process they have been combined
        summed = this_rank().add_up([*grads, *several], shown)  # before unscaling: all ranks see the same infinities
        if several:
            self.combine(grads, several)
        self.take_step()
        if self.cfg.OPTIM.SCHEDULE == "step" or self.batch_idx + 1 == self.num_batches:
            # the scaler leaves out steps whose gradients are infinite, at first perhaps all
            with contextlib.nullcontext() if self.optim.state else before_any_step():
                self.update_lr()
        return summed

    def _backward(self, images: torch.Tensor, labels: torch.Tensor, *drawn: torch.Tensor) -> dict[str, torch.Tensor]:
        """Adds up this step's gradients, scaled under PREC amp; what the log shows."""
        with self.autocast():
            losses, shown = self.compute_loss(images, labels, *drawn)
        loss, guide = losses if isinstance(losses, tuple) else (losses, None)
        shown = {"loss": loss, **shown}
        slices = self.train_loader_x.batch_sampler
        if isinstance(slices, Slices):
            shown = {name: value * slices.share for name, value in shown.items()}
            guide = None if guide is None else guide * slices.share
        if guide is not None:
            self.scaler.scale(guide).backward(retain_graph=True)
            self._guides = [p.grad.clone() for p in self.model.trainable().values()]
            for p in self.model.trainable().values():
                p.grad.zero_()
        self.scaler.scale(shown["loss"]).backward()
        if guide is not None and not this_rank().several:
            self.combine([p.grad for p in self.model.trainable().values()], self._guides)
        return shown

    # --- the loop ------------------------------------------------------------------------------------------------------

    def train(self) -> None:  # type: ignore[override]
        self.stop = StopSignals()
        try:
            with self.stop.listening():
                super().train()
        finally:
            if self.step_log is not None:
                self.step_log.close()

    def init_writer(self, log_dir: str) -> None:
        if this_rank().first:
            super().init_writer(log_dir)
            self.step_log = StepLog(Path(self.output_dir), flat(self.cfg), self.cfg.LOG == "wandb")

    def before_train(self) -> None:
        self._resume_at: dict[str, Any] | None = None
        self._look_at_tested_pictures()
        self._prepare_pictures()
        super().before_train()
        self._last_save = time.monotonic()

    def _look_at_tested_pictures(self) -> None:
        """Reads people's own once, where that is kept for testing: a broken one ends the run before it is trained."""
        resized = self.test_loader.dataset.resized
        if self.are_own and resized is not None and not self.cfg.TEST.NO_TEST:
            items = [*(self.dm.dataset.val or []), *self.dm.dataset.test][this_rank().rank :: this_rank().size]
            for batch in self.as_tested([item for item in items if not resized.keeps(item.impath)]):
                resized.keep(batch)

    def _prepare_pictures(self) -> None:
        """Does the work that is the same in every epoch once: decoding, and encoding if nothing in it is random or
        trainable."""
        pictures, loader = self.train_loader_x.dataset, self.train_loader_x
        if self.sees_features and pictures.k_tfm == 1 and is_fixed(pictures.transform):
            frozen = self.frozen_features(self.model.backbone, pictures.transform)
            size = min(self.cfg.DATALOADER.TRAIN_X.BATCH_SIZE, len(pictures))
            if frozen.cache.is_of_use and frozen.alone(size) is not False:
                in_order = DataLoader(
                    pictures, size, num_workers=loader.num_workers, worker_init_fn=loader.worker_init_fn
                )
                features_ND = frozen.of_set(in_order)
                if frozen.alone(size):
                    pictures.features = features_ND
                    loader.num_workers = 0  # nothing is left to do for them
                    return
        pictures.keep()

    def run_epoch(self) -> None:
        self.set_model_mode("train")
        resume, self._resume_at = self._resume_at, None
        self.train_loader_x.dataset.epoch = self.epoch
        if this_rank().several:  # what rank 0 alone does, as evaluating, may have drawn from some generator
            checkpoints.set_random_state(this_rank().broadcast(checkpoints.random_state()))
        this_rank().sync_from_rank0(self.model.trainable())
        on_cpu = self.device.type == "cpu"
        steps = Steps(
            self.train_loader_x, self.forward_backward, self.get_current_lr, self.cfg.TRAIN.PRINT_FREQ, resume
        )
        self.num_batches, self.batch_idx = steps.count, steps.first
        for number, prints in steps:
            is_last = number + 1 == steps.count
            leaves = not is_last and self._save_is_due()
            if prints or is_last or leaves or on_cpu:  # on a GPU, reading a loss waits for the device
                self._read_losses(steps)
            if prints:
                print(steps.line(self.epoch, self.max_epoch, self.get_current_lr()), flush=True)
            if leaves:
                training = self.training()
                state = training.state(self.epoch, self.best_result, chunks=self._chunks())
                training.save(INTERRUPTED, state | steps.progress())
                self._last_save = time.monotonic()
                self.stop.leave_if_asked()
            self.batch_idx = number + 1
        if self.average is not None:
            self.average.epoch_ended(self.epoch, self.model.trainable())
        if self.epoch + 1 == self.max_epoch:
            self._graph = None  # no step follows, and its memory may be needed
            self.trained()

    def _save_is_due(self) -> bool:
        minutes = self.cfg.TRAIN.CHECKPOINT_MINUTES
        return self.stop.agree(minutes > 0 and time.monotonic() - self._last_save > 60 * minutes)

    def _read_losses(self, steps: Steps) -> None:
        for number, rate, values in steps.read():
            if not is_finite(values):
                self._report_bad_loss(number, values)
            steps.losses.update(values)
            step = self.epoch * steps.count + number
            for name, meter in steps.losses.meters.items():
                self.write_scalar(f"train/{name}", meter.avg, step)
            self.write_scalar("train/lr", rate, step)
            if self.step_log is not None:
                self.step_log.write(step=step, epoch=self.epoch + 1, **values, lr=rate)

    def _report_bad_loss(self, batch_idx: int, values: dict[str, float]) -> None:
        path = Path(self.output_dir) / "bad_step" / "state.pth.tar"
        if this_rank().first:
            state = {"state_dict": self.model.trainable(), "epoch": self.epoch, **self._about()}
            checkpoints.save(path, state | {"losses": values, "batch": batch_idx})
        this_rank().all_max()  # the first that raises ends the others
        shown = ", ".join(f"{name} {value}" for name, value in values.items())
        raise FloatingPointError(
            f"loss is not finite at epoch {self.epoch + 1}, batch {batch_idx + 1} ({shown}); what it left is in {path}: "
            "lower OPTIM.LR, or use PREC fp32 or bf16"
        )

    def after_epoch(self) -> None:
        super().after_epoch()
        if self.epoch + 1 < self.max_epoch:
            if self._save_is_due():
                self.save_model(self.epoch, self.output_dir)
            self.stop.leave_if_asked()

    # --- what run this is ----------------------------------------------------------------------------------------------

    @classmethod
    def material(cls, cfg: CfgNode) -> dict[str, Any]:
        """The settings that bear on this method's result."""
        return material_settings(cfg, cls.method())

    @classmethod
    def run_identity(cls, cfg: CfgNode, model: str = "") -> Identity:
        """What a run of `cfg` would be; reads the dataset and hashes the backbone. model: digest of what is evaluated."""
        follow_backbone(cfg)
        dataset = build_dataset(cfg)
        uses = ("test",) if model else cls.method().looks_at
        parts = {"train": dataset.train_x, "val": dataset.val, "test": dataset.test}
        data = {part: fingerprint(parts[part] or [], dataset.dataset_dir) for part in uses}
        seen = contents_for(cfg)
        contents = {part: content_fingerprint(parts[part] or [], dataset.dataset_dir, seen) for part in uses}
        sha256 = source_of(cfg.MODEL.BACKBONE.NAME).digest()
        templates = None if model else cls.templates_of(cfg)
        head = cls.head_templates_of(cfg) if cls.method().head(cfg.MODEL.HEAD.NAME) and not model else None
        return Identity(cls.material(cfg), sha256, data, model, templates, contents, head)

    @classmethod
    def head_templates_of(cls, cfg: CfgNode) -> list[list[str]]:
        """Hook: the groups of hard templates by which a head knows classes; part of the run's identity where it has one."""
        return template_groups(cfg)

    def head_groups(self) -> list[list[str]]:
        """Hook: those of this run, which may come from a checkpoint."""
        return self.head_templates_of(self.cfg)

    def put_head(self) -> None:
        """Gives the model the head that was asked for."""
        if self.head:
            self.model.put_head(self.head_groups(), self.classnames, self.asked_classnames())

    def as_tested(self, items: list) -> DataLoader:
        """Loads pictures in their order, prepared as in testing. Draws no random numbers of torch's own generator."""
        tested: Any = self.test_loader
        pictures = Pictures(self.cfg, items, transform=tested.dataset.transform)
        pictures.resized = tested.dataset.resized
        return DataLoader(
            pictures, tested.batch_size, num_workers=tested.num_workers, worker_init_fn=tested.worker_init_fn,
            generator=torch.Generator(),
        )  # fmt: skip

    def features_of(self, backbone: Backbone, items: list) -> torch.Tensor:
        """Of pictures as in testing, by the picture encoder as it was loaded; not normalised; N x D, on the CPU."""
        loader: Any = self.as_tested(items)
        return self.frozen_features(backbone, loader.dataset.transform).of_set(loader)

    def identity(self) -> dict[str, Any]:
        """What tells this run from others; stored in checkpoints and results."""
        return {
            **({"head": [list(group) for group in self.head_groups()]} if self.head else {}),
            "trainer": self.cfg.TRAINER.NAME,
            **({self.templates_called: self.templates_of(self.cfg)} if self.templates_called else {}),
            "dataset": self.cfg.DATASET.NAME,
            "classnames": list(self.classnames),
            "backbone": self.cfg.MODEL.BACKBONE.NAME,
            **getattr(self, "_backbone", {"backbone_sha256": ""}),
            "versions": {
                "python": platform.python_version(),
                "torch": str(torch.__version__),
                "pillow": PIL.__version__,  # 13 resizes by a rounding otherwise than 12
                "dassl": dassl_support.DASSL_IN_USE,
            },
        }

    # --- checkpoints ---------------------------------------------------------------------------------------------------

    def training(self) -> Training:
        """What a checkpoint holds the state of."""
        per_epoch = len(self.train_loader_x) if self.cfg.OPTIM.SCHEDULE == "step" else 1
        return Training(
            self.output_dir, self.model, self.optim, self.sched, self.scaler, self._about(), self.average, per_epoch
        )

    def _chunks(self) -> list[int]:
        """Prompts that each rank encodes at a time."""
        return this_rank().all_say(self.model.text_encoder.training_chunk)

    def _about(self) -> dict[str, Any]:
        return {
            "identity": self.identity(),
            "config": self.cfg.dump(),
            "settings": self.material(self.cfg),
            "precision": self.precision,
            "contents": self.contents,
            "seconds": round(self.seconds(), 1),
        }

    def seconds(self) -> float:
        """That the run has taken, with those before it was stopped."""
        return self.seconds_before + time.monotonic() - self._begun

    def save_model(
        self, epoch: int, directory: str, is_best: bool = False, val_result: Any = None, model_name: str = ""
    ) -> None:
        if not self.method().takes_steps:
            return
        name = model_name or f"model.pth.tar-{epoch + 1}"
        training, chunks = self.training(), self._chunks()
        for target in [name, "model-best.pth.tar"] if is_best else [name]:
            training.save(target, training.state(epoch + 1, self.best_result, val_result, chunks))
        self._last_save = time.monotonic()

    def resume_model_if_exist(self, directory: str) -> int:
        path = checkpoints.latest(Path(directory)) if self.method().takes_steps else None
        this_rank().assert_same("checkpoint", path and path.name)
        if path is None:
            print("No checkpoint found, train from scratch")
            return 0
        print(f"Found checkpoint at {directory} (will resume training)")
        state = self.training().restore(path, self.max_epoch)
        self.best_result, self.seconds_before = state["best_result"], state.get("seconds", 0.0)
        self.epoch = max(0, state["epoch"] - 1)  # what is evaluated where no epoch is left
        self.restored(state)
        if "batches_done" in state:
            self._resume_at = state
            print(f"Continuing epoch {state['epoch'] + 1} after batch {state['batches_done']}")
        print(f"Previous epoch: {state['epoch']}")
        return state["epoch"]

    def save_fitted(self) -> None:
        """For methods without training steps: saves their fitted tensors for later use (inference/). Never resumed
        from."""
        if not self.method().takes_steps and this_rank().first:
            tensors = {name: tensor.detach().cpu().clone() for name, tensor in self.model.checkpoint_tensors().items()}
            state = {"state_dict": tensors, "epoch": 0, "random": checkpoints.random_state(), **self._about()}
            checkpoints.save(Path(self.output_dir) / checkpoints.FOLDER / "model.pth.tar", state)

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Loads trained tensors for evaluation: of `epoch`, else the best on validation, else the last saved.

        Class names may differ from those of training, prompts being shared by all classes; trainer and backbone may not.
        """
        if not self.method().keeps_a_model:
            return
        this_rank().all_max()  # rank 0 may still be writing it
        path = checkpoints.model_file(directory, epoch)
        state = checkpoints.load(path)
        if this_rank().several:
            this_rank().assert_same("model", checkpoints.digest_of(state))
        refuse_other(self.identity(), state, path, ("trainer", "backbone_sha256"))
        tensors = checkpoints.tensors_of(state)
        with believing(path, "choose another model"):
            self.adopt(state.get("identity", {}), tensors)
            tensors = adopt_head(self, state.get("identity", {}), tensors, path)
        if self.TEST_SETTINGS:
            key = self.method().options.KEY
            note_other_settings(state, self.cfg.TRAINER[key], key, self.TEST_SETTINGS)
        ours = checkpoints.is_ours(state)
        checkpoints.copy_into(self.model.checkpoint_tensors(), self.convert_state(tensors), path, same_types=ours)
        self.model.weights_changed()
        with believing(path, "choose another model"):
            self.trained_on = known = trained_with(state)
        if self.method().takes_steps and known.get("epochs", 0) < known.get("epochs_planned", 0):
            print(f"Note: this model was trained for {known['epochs']} of {known['epochs_planned']} epochs")
        print(f'Loading weights to {checkpoints.FOLDER} from "{path}" (epoch = {state.get("epoch")})')

    # --- evaluation ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluates, prints Dassl's result block, keeps all metrics in self.results, returns the accuracy in percent."""
        self.set_model_mode("eval")
        split = split or self.cfg.TEST.SPLIT
        loader = self.val_loader if split == "val" else self.test_loader
        print(f"Evaluate on the *{split}* set")
        begin = time.monotonic()

        def logits_of(images: torch.Tensor) -> torch.Tensor:
            with self.autocast():
                return self.model_inference(images)

        stop = getattr(self, "stop", None) if split == "test" else None  # after_epoch stops after validation

        def leave_if_asked() -> None:
            if stop and stop.agree():
                stop.leave_if_asked()

        def logits() -> Logits:
            return Logits(self.model, self.parse_batch_test, logits_of)

        rounds = math.ceil(len(loader) / this_rank().size)
        joint = self.cfg.DATASET.SUBSAMPLE_CLASSES == "joint"
        computed = logits()
        self.results = evaluate(self._batches(loader), rounds, computed, self.evaluator, leave_if_asked, joint)
        self.confusion, pictures = computed.confusion, loader.dataset.data_source
        names = self.asked_classnames()
        self.mistakes = [
            Mistake(pictures[i].impath, names[label], names[predicted], *confidences)
            for i, label, predicted, *confidences in computed.mistakes
        ]
        self.test_seconds = time.monotonic() - begin
        if split == "test" and self.is_trained_here and "val" in self.method().looks_at and self.val_loader is not None:
            self.results |= validated(self._batches(self.val_loader), logits()).known()
        self.caches.tell()
        for key, value in self.results.items():
            self.write_scalar(f"{split}/{key}", value, self.epoch)
        if self.step_log is not None:
            done = (self.epoch + 1) * len(self.train_loader_x)
            self.step_log.write(step=done, epoch=self.epoch + 1, split=split, **self.results)
        return self.results["accuracy"]

    def _batches(self, loader: DataLoader) -> Any:
        """This rank's batches of pictures, or of their features if the model needs only these."""
        if not self.sees_features:
            return in_turns(loader)
        return self.frozen_features(self.model.backbone, loader.dataset.transform).batches(loader)  # type: ignore[attr-defined]
