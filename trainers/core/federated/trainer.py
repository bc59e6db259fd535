"""The base trainer of federated methods: the server's rounds in the place of epochs.

A method is a PromptTrainer with this class before it, which says what its clients share (shared) and what each keeps
(private). The server holds no pictures but those that it was built with, and trains nothing itself.
"""

import contextlib
import functools
import importlib.util
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ..ranks.collectives import this_rank
from ..runs.files import csv_of, write_atomically
from ..training.schedule import before_any_step
from ..training.trainer import PromptTrainer
from .letters import Letter, Link, copied, fault_of, fault_of_test, weighted_mean
from .options import FederationOptions
from .partition import Part, partition


class FederatedTrainer(PromptTrainer):
    """A server of clients that train PromptTrainer's model. tests_own: a client is tested with what it learned itself, not
    with the mean. is_whole_without: what is shared is a model without what is private."""

    tests_own = False
    is_whole_without = False
    may_record = False
    link: Link | None = None  # to the clients; made in train() unless it is given

    # --- what a method defines -----------------------------------------------------------------------------------------

    def shared(self) -> dict[str, torch.Tensor]:
        """Hook: what clients send and receive, as views of trainable tensors, by name. The default is everything."""
        return dict(self.model.trainable())

    def private(self) -> dict[str, torch.Tensor]:
        """Hook: what each client keeps, as views; with `shared` all that is trained."""
        return {}

    def received(self, letter: Letter) -> None:
        """Hook: a client takes from a question what its model needs beside the tensors that it trains."""

    def further(self, client: int) -> dict[str, torch.Tensor]:
        """Hook: what a question to a client holds for `received`."""
        return {}

    def proximal(self, received: dict[str, torch.Tensor]) -> torch.Tensor | float:
        """Hook: what is added to a client's loss for leaving what it received."""
        return 0.0

    # --- building ------------------------------------------------------------------------------------------------------

    def check_cfg(self, cfg: Any) -> None:
        super().check_cfg(cfg)
        if not isinstance(self.options, FederationOptions):
            raise ValueError(
                f"the options of {cfg.TRAINER.NAME} have to be FederationOptions, as docs/EXTENDING.md says"
            )
        if this_rank().several:
            raise ValueError(f"{cfg.TRAINER.NAME} shares its work among clients, not ranks: start it with one process")
        if importlib.util.find_spec("flwr") is None:
            raise ValueError(f"{cfg.TRAINER.NAME} needs Flower: pip install 'flwr[simulation]>=1.42'")
        if cfg.TEST.FINAL_MODEL != "last_step":
            raise ValueError("TEST.FINAL_MODEL is best_val: a federation tests its last round; leave it out")
        if cfg.OPTIM.SCHEDULE != "epoch":
            raise ValueError(
                f"OPTIM.SCHEDULE is {cfg.OPTIM.SCHEDULE}: a federation's rate changes by rounds; leave it out"
            )
        sampler = cfg.DATALOADER.TRAIN_X.SAMPLER
        if sampler != "RandomSampler":
            raise ValueError(f"DATALOADER.TRAIN_X.SAMPLER is {sampler}: clients draw at random; leave it out")
        if cfg.TEST.NO_TEST:
            raise ValueError("TEST.NO_TEST is True: a federation tests every round; leave it out")

    def build_data_loader(self) -> None:
        super().build_data_loader()
        o, items = self.options, self.train_loader_x.dataset.data_source
        self.parts: list[Part] = partition(o.partition, items, o.clients, o.concentration, self.cfg.SEED)

    def finish_model(self, *args: Any, **options: Any) -> None:
        super().finish_model(*args, **options)
        own = {**self.shared(), **self.private()}
        self.start = {name: tensor.detach().clone() for name, tensor in own.items()}
        self.taken: dict[int, dict[str, torch.Tensor]] = {}  # the last tensors that came from each client
        self.last: dict[int, int] = {}  # and in which round
        self.saved: dict[int, int] = {}  # as the last checkpoint has it
        self.rounds: list[dict[str, Any]] = []

    def prepare_client(self) -> None:
        """Once in a process of clients, behind building."""
        super()._prepare_pictures()

    def _prepare_pictures(self) -> None:
        """The server trains on none."""

    # --- the server ----------------------------------------------------------------------------------------------------

    def train(self) -> None:  # type: ignore[override]
        with contextlib.ExitStack() as inside:
            if self.link is None:
                from .flower import clients  # needs flwr

                on_gpu = self.device.type == "cuda"
                self.link = inside.enter_context(
                    clients(self.options.clients, self.cfg.dump(), self.options.wait, on_gpu)
                )
            super().train()

    def before_train(self) -> None:
        super().before_train()
        self.write_parts()
        pictures, classes = ([len(getattr(part, name)) for part in self.parts] for name in ("train", "classes"))
        print(f"{len(self.parts):,} clients with {_span(pictures)} pictures of {_span(classes)} classes each")

    def chosen(self) -> list[int]:
        """The clients of this round, by the run's seed and the round's number."""
        count = max(1, int(self.options.participation * self.options.clients))
        generator = torch.Generator().manual_seed(self.cfg.SEED * 100_003 + self.epoch + 1)
        return sorted(torch.randperm(self.options.clients, generator=generator)[:count].tolist())

    def run_epoch(self) -> None:
        begin, number, like = time.monotonic(), self.epoch + 1, self.shared()
        assert self.link is not None
        rates = [float(group["lr"]) for group in self.optim.param_groups]
        chosen = self.chosen()
        asked = {k: self._question(k, round=number, rates=rates) for k in chosen}
        answers = self.link.ask("train", asked)
        faults = {k: fault_of(answers[k], like, len(self.parts[k].train)) for k in chosen}
        for client, fault in faults.items():
            if fault:
                print(f"Note: client {client} is left out of round {number}: {fault}", flush=True)
        good: dict[int, Letter] = {k: answers[k] for k in chosen if not faults[k]}  # type: ignore[misc]
        if not good:
            raise RuntimeError(f"no client's answer could be used in round {number}: {faults[chosen[0]]}")
        with torch.no_grad():
            for name, tensor in weighted_mean(good, like).items():
                like[name].copy_(tensor)
        self.model.weights_changed()
        self.taken |= {client: answer.tensors for client, answer in good.items()}
        self.last |= dict.fromkeys(good, number)
        with before_any_step():  # the server takes none
            self.update_lr()
        row = {
            "round": number, "asked": len(chosen), "answered": len(good), "lr": rates[0],
            "loss": sum(answer.words["loss"] for answer in good.values()) / len(good),
            "bytes_down": sum(letter.bytes for letter in asked.values()),
            "bytes_up": sum(answer.bytes for answer in good.values()),
            **self._evaluated({k: letter for k, letter in asked.items() if k in good}),
        }  # fmt: skip
        self.rounds.append(row)
        self._write_rounds()
        for name in ("loss", "accuracy", "lr"):
            self.write_scalar(f"train/{name}", row[name], self.epoch)
        if self.step_log is not None:
            self.step_log.write(step=self.epoch, epoch=number, **row)
        print(f"round [{number}/{self.max_epoch}] {len(good)} of {len(chosen)} clients, loss {row['loss']:.4f}, "
              f"accuracy {row['accuracy']:.2f} ± {row['spread']:.2f}, lr {rates[0]:.4e}, "
              f"{time.monotonic() - begin:.1f} s", flush=True)  # fmt: skip

    def _question(self, client: int, **words: Any) -> Letter:
        known = {"last": self.last.get(client, 0), "saved": self.saved.get(client, 0)}
        return Letter(known | words, copied(self.shared()) | self.further(client))

    def _evaluated(self, trained: dict[int, Letter]) -> dict[str, float]:
        """Mean and deviation over clients of the accuracy on their kind of test pictures, each in percent; in the last
        round also of that on all. trained: what the clients that have just trained were asked."""
        is_last = self.epoch + 1 == self.max_epoch
        asked = {}
        for client in range(self.options.clients):
            asked[client] = self._question(client, all=is_last)
            if client in trained and self.tests_own:  # with what it has just been trained with
                asked[client] = Letter(asked[client].words, trained[client].tensors)
        assert self.link is not None
        answers = self.link.ask("evaluate", asked)
        own, everything, self._clients, fault, items = [], [], [], "", self.tested_items()
        for client, answer in answers.items():
            row: dict[str, Any] = {"client": client, "pictures": len(self.parts[client].train)}
            of_its_kind = sum(map(self.parts[client].asks_for, items))
            fault = fault_of_test(answer, of_its_kind, len(items) if is_last else 0)
            if fault:
                print(f"Note: client {client} is not tested in round {self.epoch + 1}: {fault}", flush=True)
            else:
                words = answer.words  # type: ignore[union-attr]
                if words["asked"]:
                    own.append(100 * words["right"] / words["asked"])
                    row |= {"accuracy": own[-1], "test_pictures": words["asked"]}
                if is_last:
                    everything.append(100 * words["right_of_all"] / words["all"])
                    row |= {"accuracy_on_all": everything[-1]}
            self._clients.append(row)
        if not own:
            raise RuntimeError(f"no client could be tested in round {self.epoch + 1}: {fault}")
        found = {"accuracy": _mean(own), "spread": _deviation(own), "tested": float(len(own))}
        return found | ({"accuracy_on_all": _mean(everything)} if everything else {})

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """The last round's figures become the run's, with the mean of the last five rounds and the best round's."""
        begin, last = time.monotonic(), self.rounds[-1]
        accuracies = [row["accuracy"] for row in self.rounds]
        self.results = {
            "accuracy": last["accuracy"], "error_rate": 100 - last["accuracy"], "accuracy_spread": last["spread"],
            "accuracy_on_all": last["accuracy_on_all"], "accuracy_of_last_five_rounds": _mean(accuracies[-5:]),
            "accuracy_of_best_round": max(accuracies), "rounds": len(self.rounds), "clients": self.options.clients,
            "clients_tested": int(last["tested"]),
            "bytes_down": sum(row["bytes_down"] for row in self.rounds),
            "bytes_up": sum(row["bytes_up"] for row in self.rounds),
        }  # fmt: skip
        self.test_seconds = time.monotonic() - begin
        r = self.results
        print(f"=> result\n* clients: {r['clients']:,}\n"
              f"* accuracy on each client's kind of pictures, of {r['clients_tested']:,} clients that were tested: "
              f"{r['accuracy']:.1f}% ± {r['accuracy_spread']:.1f}\n"
              f"* accuracy on all pictures: {r['accuracy_on_all']:.1f}%\n"
              f"* mean of the last five rounds: {r['accuracy_of_last_five_rounds']:.1f}%\n"
              f"* best round (chosen by what is tested): {r['accuracy_of_best_round']:.1f}%")  # fmt: skip
        return self.results["accuracy"]

    # --- a client's test pictures --------------------------------------------------------------------------------------

    def tested_items(self) -> list:
        """The pictures of TEST.SPLIT."""
        loader = self.val_loader if self.cfg.TEST.SPLIT == "val" else self.test_loader
        return loader.dataset.data_source

    @functools.cached_property
    def tested_features(self) -> torch.Tensor:
        """Of tested_items(), by a frozen picture encoder; N x D, on the CPU."""
        return self.features_of(self.model.backbone, self.tested_items())

    def test_batches(self, places: Sequence[int]) -> Iterator[tuple[torch.Tensor, torch.Tensor, Sequence[int]]]:
        """Pictures, or their features, labels, and their places among tested_items()."""
        items = self.tested_items()
        if self.sees_features:
            for some in _in_batches(places, self.cfg.DATALOADER.TEST.BATCH_SIZE):
                labels_B = torch.tensor([items[i].label for i in some])
                yield self.tested_features[list(some)].to(self.device), labels_B.to(self.device), some
            return
        loader: Any = self.as_tested([items[i] for i in places])
        parts = _in_batches(places, loader.batch_size)
        for batch, some in zip(loader, parts, strict=True):
            yield (*self.parse_batch_test(batch), some)

    # --- what it writes ------------------------------------------------------------------------------------------------

    def write_parts(self) -> None:
        """Which client has which pictures, in parts.csv."""
        items = self.train_loader_x.dataset.data_source
        rows = [
            (client, items[i].impath, items[i].classname) for client, part in enumerate(self.parts) for i in part.train
        ]
        write_csv(Path(self.output_dir) / "parts.csv", [("client", "picture", "class"), *rows])

    def _write_rounds(self) -> None:
        header = list(self.rounds[-1])  # of the last round there is most to say
        write_csv(
            Path(self.output_dir) / "rounds.csv", [header, *([row.get(n, "") for n in header] for row in self.rounds)]
        )
        names = ("client", "pictures", "test_pictures", "accuracy", "accuracy_on_all")
        write_csv(
            Path(self.output_dir) / "clients.csv", [names, *([row.get(n, "") for n in names] for row in self._clients)]
        )

    def _about(self) -> dict[str, Any]:
        kept = [] if self.is_whole_without else sorted(self.private())
        taken = {str(client): tensors for client, tensors in self.taken.items()}
        last = {str(client): number for client, number in self.last.items()}
        return super()._about() | {"federation": {"taken": taken, "last": last, "rounds": self.rounds, "kept": kept}}

    def restored(self, state: dict[str, Any]) -> None:
        kept = state["federation"]
        self.taken = {int(client): tensors for client, tensors in kept["taken"].items()}
        self.last = {int(client): number for client, number in kept["last"].items()}
        self.rounds = kept["rounds"]
        self.saved = dict(self.last)

    def save_model(self, *args: Any, **options: Any) -> None:
        super().save_model(*args, **options)
        self.saved = dict(self.last)


def write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    """A table, the header first."""
    write_atomically(path, csv_of(rows).encode("utf-8", "backslashreplace"))


def _in_batches(places: Sequence[int], size: int) -> list[Sequence[int]]:
    return [places[start : start + size] for start in range(0, len(places), size)]


def _span(counts: Sequence[int]) -> str:
    least, most = min(counts), max(counts)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _deviation(values: Sequence[float]) -> float:
    """Of the population of clients."""
    centre = _mean(values)
    return (sum((value - centre) ** 2 for value in values) / len(values)) ** 0.5
