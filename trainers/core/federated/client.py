"""What a client does: trains on its own pictures from what the server sends, and says how well that does.

Only the shared tensors and counts leave it. Its pictures do not, nor does what it keeps for itself (a gate, a router).
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from dassl.utils import set_random_seed
from torch.utils.data import DataLoader

from ..training import checkpoints
from .letters import Letter, copied
from .partition import Part


def run_of(trainer: Any) -> str:
    """A name for a trainer's run: whatever bears on its result."""
    identity = {name: value for name, value in trainer.identity().items() if name != "versions"}
    said = [trainer.material(trainer.cfg), trainer.cfg.SEED, identity]
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:12]


class Client:
    """Client `number`. trainer: a FederatedTrainer, with the model and all pictures, used by several clients in turn.
    folder: where they keep what is theirs, each run's apart."""

    def __init__(self, trainer: Any, number: int, folder: Path) -> None:
        self.trainer, self.number = trainer, number
        self.folder = folder / run_of(trainer) / f"client{number}"
        self.part: Part = trainer.parts[number]

    def train(self, question: Letter) -> Letter:
        """Local epochs from the question's shared tensors and this client's own; keeps the result under the round's
        number, and answers with the shared tensors."""
        trainer, words = self.trainer, question.words
        set_random_seed((trainer.cfg.SEED * 1_000_003 + self.number * 1_009 + words["round"]) % 2**31)
        self._put(question, own_shared=False)
        received = {name: tensor.detach().clone() for name, tensor in trainer.shared().items()}
        trainer.optim.state.clear()  # of the client before, as its scaler
        trainer.scaler = torch.amp.GradScaler("cuda", enabled=trainer.precision == "amp")
        for group, rate in zip(trainer.optim.param_groups, words["rates"], strict=True):
            group["lr"] = rate
        trainer.set_model_mode("train")
        losses: list[float] = []
        for epoch in range(trainer.options.local_epochs):
            trainer.train_loader_x.dataset.epoch = (words["round"] - 1) * trainer.options.local_epochs + epoch
            losses += self._epoch(received)
        shared, private = (copied(tensors) for tensors in (trainer.shared(), trainer.private()))
        learned = shared | private
        strange = next((name for name, tensor in learned.items() if not tensor.isfinite().all()), "")
        if strange:
            raise FloatingPointError(f"its {strange} is not finite: lower OPTIM.LR")
        checkpoints.save(self._file(words["round"]), {"state_dict": learned})
        self._forget(words["saved"])
        return Letter({"pictures": len(self.part.train), "loss": sum(losses) / len(losses)}, shared)

    def evaluate(self, question: Letter) -> Letter:
        """Right answers among this client's kind of test pictures, and, where it is asked, among all."""
        trainer, words = self.trainer, question.words
        self._put(question, own_shared=trainer.tests_own)
        items = trainer.tested_items()
        asked = range(len(items)) if words["all"] else [i for i, item in enumerate(items) if self.part.asks_for(item)]
        trainer.set_model_mode("eval")
        mine = all_right = total = 0
        with torch.no_grad(), trainer.autocast():
            for images, labels, places in trainer.test_batches(list(asked)):
                right_B = (trainer.model(images).argmax(1) == labels).tolist()
                all_right += sum(right_B)
                own = [right for right, i in zip(right_B, places, strict=True) if self.part.asks_for(items[i])]
                mine, total = mine + sum(own), total + len(own)
        found: dict[str, Any] = {"right": mine, "asked": total}
        return Letter(found | ({"right_of_all": all_right, "all": len(items)} if words["all"] else {}))

    def _epoch(self, received: dict[str, torch.Tensor]) -> list[float]:
        trainer, losses = self.trainer, []
        dataset: Any = trainer.train_loader_x.dataset
        order = [self.part.train[i] for i in torch.randperm(len(self.part.train)).tolist()]
        size = trainer.cfg.DATALOADER.TRAIN_X.BATCH_SIZE
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        for batch in DataLoader(dataset, batch_sampler=batches, generator=torch.Generator()):
            images, labels = trainer.parse_batch_train(batch)
            trainer.optim.zero_grad()
            with trainer.autocast():
                loss: Any = trainer.compute_loss(images, labels, *trainer.drawn())[0]
            loss = loss + trainer.proximal(received)
            trainer.scaler.scale(loss).backward()
            trainer.take_step()
            losses.append(loss.item())
        return losses

    # --- what it keeps -------------------------------------------------------------------------------------------------

    def _put(self, question: Letter, own_shared: bool) -> None:
        """Into the model: the shared tensors of the question, or this client's own; and what it kept, or its start.

        Raises FileNotFoundError where what it kept is gone.
        """
        trainer, last = self.trainer, question.words["last"]  # the last round that the server took of it; 0: none
        is_kept = last and (trainer.private() or own_shared)
        kept = checkpoints.load(self._file(last))["state_dict"] if is_kept else trainer.start
        with torch.no_grad():
            for name, tensor in trainer.private().items():
                tensor.copy_(kept[name])
            for name, tensor in trainer.shared().items():
                tensor.copy_(kept[name] if own_shared and last else question.tensors[name])
        trainer.model.weights_changed()
        trainer.received(question)

    def _file(self, number: int) -> Path:
        return self.folder / f"round-{number}.pth.tar"

    def _forget(self, saved: int) -> None:
        """Rounds before `saved`, the last that a checkpoint of the server's knows of: to these it never goes back."""
        for file in self._file(0).parent.glob("round-*.pth.tar"):
            number = file.name.removeprefix("round-").removesuffix(".pth.tar")
            if number.isdigit() and int(number) < saved:
                file.unlink(missing_ok=True)
