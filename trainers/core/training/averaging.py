"""Averages weights over epochs, for methods that ask for it. The sum is part of the checkpoint."""

import math
from collections.abc import Mapping, Sequence

import torch


class EpochAverage:
    """sum_e w_e p_e over epochs e = 1..N of what is trained, put into the model behind the last one.

    weights: w_1..w_N.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self.weights = list(weights)
        self.sums: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def epoch_ended(self, epoch: int, trained: Mapping[str, torch.Tensor]) -> None:
        """Adds what was trained in `epoch`, from 0 on; behind the last one the average takes its place."""
        for name, tensor in trained.items():
            part = self.weights[epoch] * tensor.detach()
            self.sums[name] = self.sums[name] + part if name in self.sums else part
        if epoch + 1 == len(self.weights):
            for name, tensor in trained.items():
                tensor.copy_(self.sums[name])

    def state(self) -> dict[str, torch.Tensor]:
        return {name: tensor.cpu() for name, tensor in self.sums.items()}

    def restore(self, state: Mapping[str, torch.Tensor], trained: Mapping[str, torch.Tensor]) -> None:
        """Takes up the sums of a checkpoint. Raises ValueError where they are of other tensors."""
        if state and {n: t.shape for n, t in state.items()} != {n: t.shape for n, t in trained.items()}:
            raise ValueError("the average over epochs is of other tensors than the model's")
        self.sums = {name: tensor.to(trained[name].device) for name, tensor in state.items()}


def gaussian(epochs: int, mean: float, deviation: float) -> list[float]:
    """The normal density at epochs 1..N, normalised to sum 1, as in PromptSRC. Raises ValueError where it vanishes."""
    density = [math.exp(-0.5 * ((epoch - mean) / deviation) ** 2) for epoch in range(1, epochs + 1)]
    if not sum(density) > 0:
        raise ValueError(f"no epoch from 1 to {epochs} has a weight around GPA_MEAN {mean} with GPA_STD {deviation}")
    return [value / sum(density) for value in density]
