"""Evaluation of MoCoOp against zero-shot CLIP, per batch, once the text is encoded."""

import torch
from common import DEVICE, alternate, classnames, groups, ratio, report, spread, vit_b16

from trainers.mocoop import MixtureCLIP
from trainers.zsclip import HardPromptCLIP

BATCH = 32


@torch.no_grad()
def main() -> None:
    names = classnames(100)
    mixture = MixtureCLIP(vit_b16(), names, groups(5)).to(DEVICE).eval()
    zero_shot = HardPromptCLIP(vit_b16(), names, ["a photo of a {}."]).to(DEVICE).eval()
    images = torch.randn(BATCH, 3, 224, 224, device=DEVICE)
    times = alternate({"MoCoOp": lambda: mixture(images), "zero-shot CLIP": lambda: zero_shot(images)}, rounds=5)
    ours, theirs = times.values()
    rows = [[name, spread(t)] for name, t in times.items()]
    rows.append(["MoCoOp / zero-shot (target: at most 1.02)", f"{ratio(ours, theirs):.3f}"])
    report("evaluation", "Evaluation, batch 32, 100 classes: seconds, median (range)", ["", "s"], rows, times=times)


if __name__ == "__main__":
    main()
