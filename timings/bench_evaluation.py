"""Evaluation of MoCoOp against zero-shot CLIP, per batch, once the text is encoded.

Both spend almost all of the time in the same image encoder, whose calls vary by more than the target's margin; so what each
does beside it is timed too, on image features that are there already.
"""

import statistics

import torch
from common import DEVICE, alternate, classnames, groups, ratio, report, spread, vit_b16

from trainers.mocoop.trainer import MixtureCLIP
from trainers.zsclip.trainer import HardPromptCLIP

BATCH = 8


@torch.no_grad()
def main() -> None:
    names = classnames(100)
    models = {
        "MoCoOp": MixtureCLIP(vit_b16(), names, groups(5)).to(DEVICE).eval(),
        "zero-shot CLIP": HardPromptCLIP(vit_b16(), names, ["a photo of a {}."]).to(DEVICE).eval(),
    }
    images = torch.randn(BATCH, 3, 224, 224, device=DEVICE)
    whole = alternate({name: lambda m=model: m(images) for name, model in models.items()}, rounds=20)
    for model in models.values():
        features = model.image_features(images)
        model.image_features = lambda _, known=features: known
    beside = alternate({name: lambda m=model: m(images) for name, model in models.items()}, rounds=200)
    ours, theirs = whole.values()
    more, less = (statistics.median(times) for times in beside.values())
    rows = [[name, spread(times)] for name, times in whole.items()]
    rows += [[f"{name}, beside the image encoder", f"{statistics.median(t):.5f}"] for name, t in beside.items()]
    rows.append(["MoCoOp / zero-shot (target: at most 1.02)", f"{ratio(ours, theirs):.3f}"])
    rows.append(["the same, from what they do beside it", f"{1 + (more - less) / statistics.median(theirs):.4f}"])
    title = f"Evaluation, batch {BATCH}, 100 classes: seconds, median (range)"
    report("evaluation", title, ["", "s"], rows, whole=whole, beside=beside)


if __name__ == "__main__":
    main()
