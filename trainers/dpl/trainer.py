"""DPL: differentiable prompt learning (Huang et al., IJCAI 2025, arXiv 2501.00457)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from yacs.config import CfgNode

from ..core.clip.losses import accuracy
from ..core.loading.loaders import with_batches
from ..core.ranks.collectives import this_rank
from ..core.runs import files
from ..core.settings.configure import declaring
from ..core.training.trainer import PromptTrainer, register
from ..promptsrc.trainer import PromptSRC
from .model import SEARCHED_WITH, DplCLIP
from .options import DplModelOptions, DplOptions


class Walk:
    """Numbers of pictures, batch by batch and without end: all of them in one order, then in another."""

    def __init__(self, count: int, batch: int, seed: int, first: int = 0) -> None:
        """first: batches that have been taken before."""
        self.count, self.batch, self.seed, self.first = count, batch, seed, first

    def __iter__(self) -> Iterator[list[int]]:
        at, orders = self.first * self.batch, dict[int, list[int]]()
        while True:
            rounds = [(at + i) // self.count for i in range(self.batch)]
            for number in set(rounds) - set(orders):
                generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
                orders[number] = torch.randperm(self.count, generator=generator).tolist()
            orders = {number: order for number, order in orders.items() if number >= rounds[0]}
            batch = [orders[number][(at + i) % self.count] for i, number in enumerate(rounds)]
            yield batch[this_rank().slice_of(self.batch)] or batch[:1]
            at += self.batch


def _learn(some: list[nn.Parameter], others: list[nn.Parameter]) -> None:
    for parameter in some:
        parameter.requires_grad_(True)
    for parameter in others:
        parameter.requires_grad_(False)


@register
class DPL(PromptTrainer):
    """Trains DplCLIP with cross-entropy: SEARCH_EPOCHS of the search, then OPTIM.MAX_EPOCH of the network found, with a
    schedule each."""

    templates_called = "templates"

    @classmethod
    def templates_of(cls, cfg: CfgNode) -> list:
        """The search's, and those of the network found."""
        sixty = cfg.TRAINER.DPL.TEXT == "ensemble"
        return [SEARCHED_WITH, *(PromptSRC.templates_of(cfg) if sixty else [SEARCHED_WITH])]

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        if cfg.TEST.FINAL_MODEL == "best_val":
            raise ValueError("TEST.FINAL_MODEL is best_val, but DPL searches on the validation pictures: use last_step")

    def build_data_loader(self) -> None:
        super().build_data_loader()
        self.search_epochs = 0 if self.options.lengths else self.options.search_epochs
        self.plan_epochs(self.cfg.OPTIM.MAX_EPOCH + self.search_epochs)

    def before_train(self) -> None:
        if self.search_epochs and not self.dm.dataset.val:
            raise ValueError(
                f"DPL searches on validation pictures, and {self.cfg.DATASET.NAME} has none: set TRAINER.DPL.LENGTHS to "
                "what was found on another data set"
            )
        if self.search_epochs:
            print(f"{self.search_epochs} epochs of search, then {self.max_epoch - self.search_epochs} of training")
        super().before_train()

    def build_model(self) -> None:
        o = self.options
        search, *last = self.templates_of(self.cfg)
        self.model = DplCLIP(
            self.load_clip(), self.classnames, search, last, distills=o.distill_weight > 0,
            **o.keywords(DplModelOptions), **self.encoder_options,
        )  # fmt: skip
        restart = self.search_epochs * (len(self.train_loader_x) if self.cfg.OPTIM.SCHEDULE == "step" else 1)
        self.finish_model(restart=restart)
        alphas = list(self.model.alphas.values())
        self.alpha_optimiser = torch.optim.Adam(alphas, self.options.search_lr, betas=(0.5, 0.999))
        self._validation: Iterator[Any] | None = None

    def _about(self) -> dict[str, Any]:
        return super()._about() | {"alpha_optimizer": self.alpha_optimiser.state_dict()}

    def restored(self, state: dict[str, Any]) -> None:
        self.alpha_optimiser.load_state_dict(state["alpha_optimizer"])

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        if not self.model.in_second_stage and self.epoch >= self.search_epochs:
            self._end_search()
        if not self.model.in_second_stage:
            found = self._search_step()
            return super().forward_backward(batch) | found
        return super().forward_backward(batch) if self.model.trainable() else self._look_on(batch)

    @torch.no_grad()
    def _look_on(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """A step of a network without contexts, which a search may find: the loss, and nothing to train."""
        with self.autocast():
            loss, shown = self.compute_loss(*self.parse_batch_train(batch))
        if self.cfg.OPTIM.SCHEDULE == "step" or self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return this_rank().add_up([], {"loss": loss, **shown})

    def _search_step(self) -> dict[str, torch.Tensor]:
        """One step of the weights of lengths, by a batch of validation pictures."""
        alphas = list(self.model.alphas.values())
        if self._validation is None:
            first = self.epoch * self.num_batches + self.batch_idx
            walk = self.validation_walk(len(self.dm.dataset.val), first)
            loader = self.as_tested(self.dm.dataset.val)
            self._validation = iter(with_batches(loader, walk, generator=torch.Generator()))
        images, labels = self.parse_batch_test(next(self._validation))
        own = this_rank().slice_of(self.options.search_batch)
        share = (own.stop - own.start) / self.options.search_batch
        contexts = list(self.model.trainable().values())
        _learn(alphas, contexts)
        with self.autocast():
            loss = F.cross_entropy(self.model(images), labels) * share
        scale = self.scaler.get_scale() if self.scaler.is_enabled() else 1.0
        self.alpha_optimiser.zero_grad()
        (loss * scale).backward()  # prompts in chunks know no other way
        _learn(contexts, alphas)
        grads = [alpha.grad for alpha in alphas]
        shown = this_rank().add_up(grads, {"loss_val": loss})
        for grad in grads:
            grad.div_(scale)
        if all(alpha.grad.isfinite().all() for alpha in alphas):  # under PREC amp, some are not
            self.alpha_optimiser.step()
        return shown

    def validation_walk(self, count: int, first: int) -> Walk:
        """Batches of `count` validation pictures, from number `first` on."""
        return Walk(count, self.options.search_batch, max(0, self.cfg.SEED), first)

    def _end_search(self) -> None:
        """The network found takes the super-network's place, and is written down."""
        probabilities = self.model.probabilities()
        self._validation = None
        self.model.begin_second_stage()
        self.optim.state.clear()
        self.record_anew()
        found = self.model.lengths()
        count = sum(p.numel() for p in self.model.trainable().values())
        if not count:
            print("Note: no block reads anything beside its positions, so this is zero-shot CLIP")
        print(f"Found {count:,} parameters: " + "; ".join(f"{tower} {own}" for tower, own in found.items()))
        if this_rank().first:
            search = {tower: {"lengths": found[tower], "probabilities": probabilities[tower]} for tower in found}
            folder = Path(self.output_dir)
            files.write_atomically(folder / "search.json", json.dumps(search, indent=1).encode())
            lists = "".join(f"- {found[tower]}  # of the {tower} tower\n" for tower in found)
            head = "# Context lengths of each block, for TRAINER.DPL.LENGTHS\n"
            files.write_atomically(folder / "lengths.yaml", (head + lists).encode())

    def compute_loss(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        parts = self.model.losses(images, labels)
        loss, shown = parts["cls"], {"acc": accuracy(parts["logits_BC"], labels)}
        if "distill" in parts:
            loss = loss + self.options.distill_weight * parts["distill"]
            shown |= {"loss_cls": parts["cls"], "loss_distill": parts["distill"]}
        return loss, shown


add_config = declaring(DplOptions)
