"""Batch-wise accuracy."""

import torch


def compute_accuracy(
    output: torch.Tensor | tuple, target: torch.Tensor, topk: tuple[int, ...] = (1,)
) -> list[torch.Tensor]:
    """Percent of rows whose label is among the k largest scores, one tensor of shape (1,) per k.

    output: (B, C) scores, or a tuple that starts with them. target: (B,) labels.
    """
    scores = output[0] if isinstance(output, tuple | list) else output
    ranked = scores.topk(max(topk), dim=1).indices == target[:, None]
    return [ranked[:, :k].any(1).float().sum().reshape(1) * (100.0 / len(target)) for k in topk]
