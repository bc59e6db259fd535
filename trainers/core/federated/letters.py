"""What server and clients send each other, and what the server makes of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Letter:
    """A question to a client, or its answer: plain values (numbers, text, lists of numbers) and named tensors."""

    words: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Of the tensors."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())


class Link(Protocol):
    """How a server reaches its clients."""

    def ask(self, kind: str, questions: Mapping[int, Letter]) -> dict[int, Letter | str]:
        """The answer of each client that was asked, or why there is none. kind: "train" or "evaluate"."""


def copied(tensors: Tensors) -> dict[str, torch.Tensor]:
    """As they are now, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def fault_of(answer: Letter | str, like: Tensors, pictures: int) -> str:
    """Why what a client says it has learned cannot be used; empty if it can. like: tensors as they should be; pictures: how
    many it has."""
    if isinstance(answer, str):
        return answer
    if answer.tensors.keys() != like.keys():
        return f"it sent {', '.join(sorted(answer.tensors)) or 'nothing'} in the place of {', '.join(sorted(like))}"
    for name, tensor in answer.tensors.items():
        if tensor.shape != like[name].shape or tensor.dtype != like[name].dtype:
            sent, wanted = (f"{tuple(t.shape)} {t.dtype}" for t in (tensor, like[name]))
            return f"its {name} is {sent}, which should be {wanted}"
        if not tensor.isfinite().all():
            return f"its {name} is not finite"
    if not _is_count(answer.words.get("pictures"), pictures, pictures):
        return f"it says that it has {answer.words.get('pictures')!r} pictures, and it was given {pictures}"
    loss = answer.words.get("loss")
    if not isinstance(loss, float) or not math.isfinite(loss):
        return f"its loss is {loss!r}"
    return ""


def fault_of_test(answer: Letter | str, pictures: int, of_all: int) -> str:
    """Why what a client says of a test cannot be used; empty if it can. pictures: of its kind; of_all: all that it was
    asked about besides, 0 for none."""
    if isinstance(answer, str):
        return answer
    for right, asked, there in (("right", "asked", pictures), ("right_of_all", "all", of_all)):
        if there or asked == "asked":
            found, of = (answer.words.get(name) for name in (right, asked))
            if not _is_count(of, there, there) or not _is_count(found, 0, there):
                return f"it says that {found!r} of {of!r} are right, and was asked about {there}"
    return ""


def _is_count(value: Any, least: int, most: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def weighted_mean(answers: Mapping[int, Letter], like: Tensors) -> dict[str, torch.Tensor]:
    """sum_k n_k w_k / sum_k n_k, with n_k pictures of client k (FedAvg, McMahan et al., AISTATS 2017)."""
    total = sum(answer.words["pictures"] for answer in answers.values())
    shares = {client: answers[client].words["pictures"] / total for client in sorted(answers)}
    return {
        name: torch.stack([share * answers[k].tensors[name].double() for k, share in shares.items()])
        .sum(0)
        .to(tensor.dtype)
        for name, tensor in like.items()
    }
