"""The head behind a trained model: fitted to the shots, and taken out of checkpoints (heads/text_means.py)."""

from pathlib import Path
from typing import Any

import torch

from ..heads.text_means import check_fitted
from ..ranks.collectives import this_rank


@torch.no_grad()
def fit_head(trainer: Any) -> None:
    """Fits the head of a trainer's model to its training pictures as they are tested, and says what was chosen."""
    trainer.set_model_mode("eval")
    items, model = trainer.dm.dataset.train_x, trainer.model
    loader = trainer.as_tested(items)
    if trainer.sees_features:
        inputs = trainer.features_of(model.backbone, items).split(loader.batch_size)
    else:
        inputs = (trainer.as_numbers(batch["img"], loader) for batch in loader)
    with trainer.autocast():
        features_ND = torch.cat([model.image_features(images.to(trainer.device)) for images in inputs])
    labels_N = torch.tensor([item.label for item in items], device=trainer.device)
    dtype = model.head.text_SD.dtype
    found = model.head.fit(features_ND.to(dtype), labels_N, model.logit_scale.exp().to(dtype))
    own = {name: tensor.cpu() for name, tensor in model.head.state_dict().items()}
    model.head.load_state_dict(this_rank().broadcast(own))  # another machine may round, and so choose, otherwise
    model.weights_changed()
    said = "one picture per class leaves none to choose on"
    if found is not None:
        right, count = found
        said = f"{100 * right:.1f}% of {count} shots right, each with a head of the others"
    print(f"Head fitted to {len(items):,} pictures, weight {float(model.head.weight):g}: {said}")


def adopt_head(
    trainer: Any, identity: dict[str, Any], tensors: dict[str, torch.Tensor], path: Path
) -> dict[str, torch.Tensor]:
    """Makes the head for a checkpoint's classes, or leaves it out; returns the tensors that are then wanted.

    Folders of one's own are all called alike: another one is the same dataset if it has all classes of the first. Raises
    ValueError where a head is asked for, and the checkpoint has none.
    """
    known = identity.get("head")
    if trainer.head and known is None:
        raise ValueError(f"{path} has no head: train with MODEL.HEAD.NAME {trainer.head}")
    same = identity.get("dataset") == trainer.cfg.DATASET.NAME
    if trainer.head and same and set(identity["classnames"]) <= set(trainer.all_classnames):
        check_fitted(tensors)
        trainer.model.put_head(known, identity["classnames"], trainer.asked_classnames())
        trainer.model.to(trainer.device)
        return tensors
    if known is not None:
        why = "it was fitted to another dataset" if trainer.head else "MODEL.HEAD.NAME is none"
        print(f"Note: the model's head is left out: {why}")
    trainer.model.head = None
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("head.")}
