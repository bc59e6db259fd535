"""What a run finds out about its classes and their pictures before it trains."""

from collections.abc import Sequence
from typing import Any

from dassl.data.datasets import build_dataset
from yacs.config import CfgNode

from ..clip.backbones import Backbone
from ..clip.prompts import alike, refuse_alike
from ..loading.contents import contents_for


def all_classnames(dataset: Any, cfg: CfgNode, own: Sequence[str]) -> list[str]:
    """All class names of the dataset, `own` ones, of training, first, each part in label order."""
    names = getattr(dataset, "all_class_names", None)
    if names is None and cfg.DATASET.SUBSAMPLE_CLASSES != "all":  # CoOp's own datasets do not keep them
        cfg = cfg.clone()
        cfg.defrost()
        cfg.DATASET.SUBSAMPLE_CLASSES = "all"
        names = build_dataset(cfg).classnames
    known = set(own)
    return [*own, *(name for name in names or [] if name not in known)]


def look_at_names(names: Sequence[str], backbone: Backbone, are_own: bool) -> None:
    """Raises ValueError where a backbone cannot tell two classes of people's own apart; says so of a benchmark's."""
    if are_own:
        refuse_alike(names, backbone)
        return
    for first, second, *_ in alike(names, backbone):
        print(f'Note: classes "{first}" and "{second}" are the same to this backbone: the second is never predicted')


def note_doubles(dataset: Any, cfg: CfgNode) -> None:
    """Says how many test pictures are training pictures, too."""
    contents = contents_for(cfg)
    trained, tested = (contents.of_all([item.impath for item in part]) for part in (dataset.train_x, dataset.test))
    known = set(trained)
    doubles = [item.impath for item, seen in zip(dataset.test, tested, strict=True) if seen in known]
    if doubles:
        print(
            f"Note: {len(doubles)} of {len(tested)} test pictures are training pictures, too, the first is {doubles[0]}"
        )
