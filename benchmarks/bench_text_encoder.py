"""Text encoding for training, forward and backward: fast against plain, five prompts against the plain path's one."""

from collections.abc import Callable
from typing import Any

from common import alternate, classnames, groups, ratio, report, spread, vit_b16

from trainers.parts.prompts import SoftPrompts
from trainers.parts.text_encoder import TextEncoder


def backward_through(model: Any, mode: str, plans: list[SoftPrompts]) -> Callable[[], None]:
    """Encodes and differentiates each set of prompts in turn (the plain path keeps 4 GB for every 100 of them)."""
    encoder = TextEncoder(model, mode, chunk=10**6)

    def call() -> None:
        for prompts in plans:
            encoder(prompts.plan, prompts.vectors()).square().sum().backward()

    return call


def main() -> None:
    model, names = vit_b16(), classnames(100)
    templates = [group[0] for group in groups(5)]
    together = SoftPrompts(templates, names, model.token_embedding)
    each = [SoftPrompts([template], names, model.token_embedding) for template in templates]
    calls = {
        "plain, 5 prompts": backward_through(model, "plain", each),
        "plain, 1 prompt": backward_through(model, "plain", each[:1]),
        "fast, 5 prompts": backward_through(model, "fast", [together]),
    }
    times = alternate(calls, rounds=2)
    plain, one, fast = times.values()
    rows = [[label, spread(t)] for label, t in times.items()]
    rows += [["plain / fast, 5 prompts (target: at least 15)", f"{ratio(plain, fast):.1f}"],
             ["fast 5 prompts / plain 1 prompt (target: at most 0.5)", f"{ratio(fast, one):.2f}"]]  # fmt: skip
    title = "Text encoding, forward + backward, 100 classes, ViT-B/16 sizes, float32: seconds, median (range)"
    report("text_encoder", title, ["", "s"], rows, times=times)


if __name__ == "__main__":
    main()
