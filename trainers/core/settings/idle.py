"""Finds settings that have no effect in a run, so that a user who gives one on the command line is told."""

from collections.abc import Iterable

from yacs.config import CfgNode

from ...methods import methods
from .configure import SHARED, UNUSED, flat

# Parameters of augmentations, and the augmentation.
OF_TRANSFORM = {
    "INPUT.CROP_PADDING": "random_crop", "INPUT.RRCROP_SCALE": "random_resized_crop", "INPUT.CUTOUT_N": "cutout",
    "INPUT.CUTOUT_LEN": "cutout", "INPUT.GN_MEAN": "gaussian_noise", "INPUT.GN_STD": "gaussian_noise",
    "INPUT.RANDAUGMENT_N": "randaugment", "INPUT.RANDAUGMENT_M": "randaugment", "INPUT.COLORJITTER_B": "colorjitter",
    "INPUT.COLORJITTER_C": "colorjitter", "INPUT.COLORJITTER_S": "colorjitter", "INPUT.COLORJITTER_H": "colorjitter",
    "INPUT.RGS_P": "randomgrayscale", "INPUT.GB_P": "gaussian_blur", "INPUT.GB_K": "gaussian_blur",
}  # fmt: skip
# Settings that only methods which take steps read.
OF_TRAINING = ("OPTIM.", "TRAIN.", "DATALOADER.TRAIN_X.", "TEST.FINAL_MODEL", "DATALOADER.K_TRANSFORMS")


def acts_with(name: str, transforms: Iterable[str]) -> bool:
    """Whether a parameter of an augmentation acts where these are chosen; True of any other setting."""
    return name not in OF_TRANSFORM or any(t.startswith(OF_TRANSFORM[name]) for t in transforms)


def why_idle(key: str, cfg: CfgNode) -> str:
    """Why setting `key` has no effect in a run of `cfg`, in a line that says what to do; empty if it has one.

    Nothing is known about other projects' trainers.
    """
    name = cfg.TRAINER.NAME
    method = methods().get(name)
    if method is None:
        return ""
    if key in SHARED and SHARED[key].help == UNUSED:
        return f"{key} does nothing here ({UNUSED}): leave it out"
    own_groups = f"TRAINER.{method.options.KEY}.TEMPLATE_GROUPS"
    if key == "DATASET.TEMPLATE_GROUPS" and flat(cfg).get(own_groups):
        return f"{key} does nothing beside {own_groups}: leave one out"
    if key == "DATASET.INCLUDE_ALL_CLASSES" and name != "LASP":
        return f"{key} is LASP's, and does nothing for {method.title}: leave it out"
    if key in ("DATASET.TEMPLATE", "DATASET.TEMPLATE_GROUPS"):
        reads = (
            *method.templates,
            *(["TEMPLATE_GROUPS"] if method.head(cfg.MODEL.HEAD.NAME) else []),
        )
        return "" if key.split(".")[1] in reads else f"{key} does nothing for {method.title}: leave it out"
    if key.startswith("TRAINER.") and key != "TRAINER.NAME":
        own = method.options.KEY
        if key.split(".")[1] != own:
            return f"{key} is no setting of {name}{f', whose are TRAINER.{own}.*' if own else ''}: leave it out"
        setting, node = method.options.settings().get(key), cfg.TRAINER[own]
    else:
        setting, node = SHARED.get(key), cfg.get(key.split(".")[0])
    if key.startswith(OF_TRAINING) and not method.takes_steps:
        return f"{key} is for training in steps, and {name} takes none: leave it out"
    if not acts_with(key, cfg.INPUT.TRANSFORMS):
        wanted = OF_TRANSFORM[key]
        return f'{key} is a parameter of "{wanted}", which INPUT.TRANSFORMS does not have: add it, or leave {key} out'
    reason = setting.why_idle(lambda other: node[other.upper()]) if setting is not None else ""
    return f"{key} {reason}: leave it out, or set that" if reason else ""
