"""A MoCoOp training step at batch 32 against the image encoder's own forward and backward."""

import torch
from common import DEVICE, alternate, classnames, groups, ratio, report, spread, vit_b16

from trainers.mocoop.trainer import MixtureCLIP

BATCH = 32


def main() -> None:
    model = MixtureCLIP(vit_b16(), classnames(100), groups(5), text_chunk=10**6).to(DEVICE)
    images = torch.randn(BATCH, 3, 224, 224, device=DEVICE)
    labels = torch.randint(0, 100, (BATCH,), device=DEVICE)

    def whole() -> None:
        parts = model.losses(images, labels)
        (parts["cls"] + 5 * parts["text"] + parts["gate"]).backward()

    def image_only() -> None:
        model.image_features(images).square().sum().backward()

    times = alternate({"MoCoOp step": whole, "image encoder alone": image_only}, rounds=2)
    step, image = times.values()
    rows = [[name, spread(t)] for name, t in times.items()]
    rows.append(["step / image encoder (target: at most 1.3)", f"{ratio(step, image):.2f}"])
    title = "Training step, batch 32, 100 classes, 5 prompts, visual LayerNorms trained: seconds, median (range)"
    report("training_step", title, ["", "s"], rows, times=times)


if __name__ == "__main__":
    main()
