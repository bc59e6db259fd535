"""What bfloat16 and torch.compile would gain: a MoCoOp step at batch 8, ViT-B/16's sizes, and its image encoder alone."""

import contextlib
import copy

import torch
from common import DEVICE, alternate, classnames, groups, ratio, report, spread, vit_b16

from trainers.mocoop.trainer import MixtureCLIP

BATCH = 8


def main() -> None:
    model = MixtureCLIP(vit_b16(), classnames(100), groups(5), text_chunk=10**6).to(DEVICE)
    images = torch.randn(BATCH, 3, 224, 224, device=DEVICE)
    labels = torch.randint(0, 100, (BATCH,), device=DEVICE)
    half = lambda: torch.autocast(DEVICE.type, dtype=torch.bfloat16)  # noqa: E731

    def step(precision: contextlib.AbstractContextManager) -> None:
        with precision:
            parts = model.losses(images, labels)
            loss = parts["cls"] + 5 * parts["text"] + parts["gate"]
        loss.backward()

    visual = model.backbone.visual
    compiled = torch.compile(visual)
    last = copy.deepcopy(visual).to(memory_format=torch.channels_last)  # to() changes it in place
    times = alternate({
        "step, fp32": lambda: step(contextlib.nullcontext()),
        "step, bf16 by autocast": lambda: step(half()),
        "image encoder": lambda: visual(images).square().sum().backward(),
        "image encoder, torch.compile": lambda: compiled(images).square().sum().backward(),
        "image encoder, channels last": lambda: last(images.contiguous(memory_format=torch.channels_last)).sum().backward(),
    }, rounds=3)  # fmt: skip
    rows = [[name, spread(own)] for name, own in times.items()]
    rows += [[f"{a} / {b}", f"{ratio(times[a], times[b]):.2f}"] for a, b in [
        ("step, fp32", "step, bf16 by autocast"), ("image encoder", "image encoder, torch.compile"),
        ("image encoder", "image encoder, channels last"),
    ]]  # fmt: skip
    report("options", f"Batch {BATCH}, 100 classes, 5 prompts: seconds, median (range)", ["", "s"], rows, times=times)


if __name__ == "__main__":
    main()
