"""CoCoOp, which encodes every class for every picture: text for a batch of 1 and of 8 pictures, fast against plain."""

import statistics

import torch
from common import DEVICE, alternate, classnames, ratio, report, spread, vit_b16

from trainers.cocoop.trainer import CoCoOpCLIP


def main() -> None:
    clip_model, names = vit_b16(), classnames(100)
    images = torch.randn(8, 3, 224, 224, device=DEVICE)
    models = {
        mode: CoCoOpCLIP(clip_model, names, ctx_init="a photo of a", text_encoder=mode).to(DEVICE)
        for mode in ("plain", "fast")
    }

    def step(mode: str, batch: int) -> None:
        models[mode](images[:batch]).square().sum().backward()

    calls = {f"{mode}, batch {b}": (mode, b) for mode, b in (("plain", 1), ("fast", 1), ("fast", 8))}
    times = alternate({name: lambda of=of: step(*of) for name, of in calls.items()}, rounds=2)
    plain, one, eight = times.values()
    rows = [[name, spread(t), f"{statistics.median(t) / calls[name][1]:.3f}"] for name, t in times.items()]
    rows += [["plain / fast, batch 1", f"{ratio(plain, one):.1f}", ""],
             ["batch 8 / batch 1, fast (8 would be no gain)", f"{ratio(eight, one):.1f}", ""]]  # fmt: skip
    title = "CoCoOp, a whole step with 100 classes, ViT-B/16 sizes, float32: seconds, median (range)"
    report("cocoop", title, ["", "s", "s per picture"], rows, times=times)


if __name__ == "__main__":
    main()
