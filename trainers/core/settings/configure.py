"""Every setting: default, type, range and meaning, declared once, checked before anything heavy is imported.

Settings that all runs share are declared here. A method's own settings are in its options.py, as a subclass of
`Options`. `python scripts/make_files.py` writes docs/SETTINGS.md. Nothing here imports torch, so a typing error is
reported at once.
"""

import ast
import importlib.util
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from dassl.config import get_cfg_default
from yacs.config import CfgNode

from ...methods import methods
from ...options import HEADS, Options, Setting, fits, shown
from .dassl_support import DASSL_IS_INSTALLED
from .errors import did_you_mean
from .text_files import read_yaml

# --- what all runs share: Dassl's settings, whose defaults are Dassl's, and ours ---------------------------------------

TRANSFORMS = ("random_flip", "random_resized_crop", "random_crop", "center_crop", "normalize", "randaugment",
              "colorjitter", "randomgrayscale", "gaussian_blur")  # fmt: skip
# further ones that Dassl itself has
DASSLS_TRANSFORMS = ("instance_norm", "random_translation", "cutout", "imagenet_policy", "cifar10_policy", "svhn_policy",
                     "randaugment_fixmatch", "randaugment2", "gaussian_noise")  # fmt: skip
SAMPLERS: tuple[str, ...] = ("RandomSampler", "SequentialSampler")
BALANCED = "WeightedRandomSampler"  # ours, by torch's name
if DASSL_IS_INSTALLED:
    SAMPLERS += ("RandomDomainSampler", "SeqDomainSampler", "RandomClassSampler")
STEPPED = {"LR_SCHEDULER": ("single_step", "multi_step")}  # with which values of others a setting acts
SGD, MOMENTUM = {"NAME": ("sgd",)}, {"NAME": ("sgd", "rmsprop")}
ADAM = {"NAME": ("adam", "amsgrad", "radam", "adamw")}
NO_WARMUP, NO_TEST = {"WARMUP_EPOCH": (0, -1)}, {"NO_TEST": (True,)}  # and with which it does not
UNUSED = "Dassl's; no method here uses it"

SHARED: dict[str, Setting] = {
    "VERSION": Setting("of Dassl's configuration", "int"),
    "OUTPUT_DIR": Setting("folder of the run", "str"),
    "RESUME": Setting("folder to resume from; empty: the run's own", "str"),
    "SEED": Setting("of every random generator; negative: one is drawn and said", "int", most=2**32 - 1),
    "USE_CUDA": Setting("use the GPU if there is one", "bool"),
    "VERBOSE": Setting("print what is loaded", "bool"),
    "DETERMINISTIC": Setting(
        "deterministic CUDA kernels alone; torch ends the run where there is none", "bool", default=False
    ),
    "LOG": Setting(
        "beside log.txt, steps.jsonl and TensorBoard: wandb for Weights & Biases, whose own variables say where and how",
        "str", among=("", "wandb"), default="",
    ),
    "TF32": Setting(
        "let a GPU round what it multiplies in float32 to 10 bits, which is several times as fast", "bool", default=False
    ),
    "INPUT.SIZE": Setting(
        "height and width of pictures, in pixels; None: the backbone's", "tuple[int, int] | None", least=1, most=4096
    ),
    "INPUT.INTERPOLATION": Setting(
        "of resizing; None: the backbone's", "str | None", among=("bilinear", "bicubic", "nearest")
    ),
    "INPUT.RESIZE_MODE": Setting(
        "of test pictures: the shorter edge to INPUT.SIZE, then the middle; or both edges; None: the backbone's",
        "str | None", among=("shortest", "squash"),
    ),
    "INPUT.TRANSFORMS": Setting(
        "augmentations of training pictures, and normalize for all", "list[str]",
        among=TRANSFORMS + (DASSLS_TRANSFORMS if DASSL_IS_INSTALLED else ()),
    ),
    "INPUT.NO_TRANSFORM": Setting("hand pictures over as they are read", "bool"),
    "INPUT.PIXEL_MEAN": Setting(
        "per channel, of values from 0 to 1; None: the backbone's", "tuple[float, float, float] | None"
    ),
    "INPUT.PIXEL_STD": Setting("per channel; None: the backbone's", "tuple[float, float, float] | None", above=0),
    "INPUT.SEED_PER_PICTURE": Setting(
        "draw each picture's augmentation from seed, epoch and picture alone, so that the number of workers and of ranks "
        "changes nothing; several ranks always do, one process otherwise draws in Dassl's order", "bool", default=False,
    ),
    "INPUT.CROP_PADDING": Setting("of random_crop, in pixels", "int", least=0),
    "INPUT.RRCROP_SCALE": Setting("share of the area that is kept", "tuple[float, float]", above=0, most=1),
    "INPUT.CUTOUT_N": Setting("holes of cutout, which Dassl itself has", "int", least=0),
    "INPUT.CUTOUT_LEN": Setting("their size in pixels", "int", least=1),
    "INPUT.GN_MEAN": Setting("mean of gaussian_noise, which Dassl itself has", "float"),
    "INPUT.GN_STD": Setting("its deviation", "float", least=0),
    "INPUT.RANDAUGMENT_N": Setting("operations of randaugment", "int", least=0),
    "INPUT.RANDAUGMENT_M": Setting("its strength", "int", least=0),
    "INPUT.COLORJITTER_B": Setting("brightness of colorjitter", "float", least=0),
    "INPUT.COLORJITTER_C": Setting("its contrast", "float", least=0),
    "INPUT.COLORJITTER_S": Setting("its saturation", "float", least=0),
    "INPUT.COLORJITTER_H": Setting("its hue", "float", least=0, most=0.5),
    "INPUT.RGS_P": Setting("probability of randomgrayscale", "float", least=0, most=1),
    "INPUT.GB_P": Setting("probability of gaussian_blur", "float", least=0, most=1),
    "INPUT.GB_K": Setting("its kernel's size, odd", "int", least=1),
    "DATASET.ROOT": Setting("folder of all datasets", "str"),
    "DATASET.NAME": Setting("registry name, see docs/DATASETS.md", "str"),
    "DATASET.FOLDER": Setting("your own pictures, for FolderDataset", "str", default=""),
    "DATASET.SPLIT_FILE": Setting("their split, in CoOp's format, or a manifest: .csv, .tsv, .jsonl", "str", default=""),
    "DATASET.FOLDS": Setting(
        "cross-validation of pictures without a test part: fold k of so many tests with seed k; 0: none", "int", least=2,
        most=100, default=0, also=(0,),
    ),
    "DATASET.NAMES_FILE": Setting("their class names, a line of folder and name each", "str", default=""),
    "DATASET.TEMPLATE": Setting(
        "its hard template, with {} for the name; empty: that of configs/templates/zeroshot.yaml", "str", default="",
    ),
    "DATASET.TEMPLATE_GROUPS": Setting(
        "its groups of hard templates, a list of lists; empty: those of configs/templates/template_groups.yaml",
        "list[list[str]]", default=[],
    ),
    "DATASET.SUBSAMPLE_CLASSES": Setting(
        "which half of the classes; joint: all are candidates, each half has its accuracy (an evaluation)", "str",
        among=("all", "base", "new", "joint"), default="all",
    ),
    "DATASET.INCLUDE_ALL_CLASSES": Setting(
        "LASP's: classify over the names of all classes, in training and in testing", "bool", default=False
    ),
    "DATASET.NUM_SHOTS": Setting("training pictures per class; -1: all", "int", least=1, also=(-1,)),
    "DATASET.SOURCE_DOMAINS": Setting("domains to train on, where a dataset has domains", "list[str]"),
    "DATASET.TARGET_DOMAINS": Setting("domains to test on", "list[str]"),
    "DATASET.NUM_LABELED": Setting(UNUSED, "int"),
    "DATASET.VAL_PERCENT": Setting(UNUSED, "float"),
    "DATASET.STL10_FOLD": Setting(UNUSED, "int"),
    "DATASET.CIFAR_C_TYPE": Setting(UNUSED, "str"),
    "DATASET.CIFAR_C_LEVEL": Setting(UNUSED, "int"),
    "DATASET.ALL_AS_UNLABELED": Setting(UNUSED, "bool"),
    "DATALOADER.NUM_WORKERS": Setting("processes that load pictures, no more than there are cores", "int", least=0),
    "DATALOADER.CACHE_MB": Setting(
        "memory for decoded training pictures that are not kept on disk (CACHE)", "int", least=0, default=2048
    ),
    "CACHE.FOLDER": Setting(
        "where runs keep pictures and features for each other; empty: MOCOOP_CACHE, or mocoop/ in your cache",
        "str", default="", unless={"LIMIT_MB": (0,)},
    ),
    "CACHE.LIMIT_MB": Setting("what all of them may take; 0: nothing is kept", "int", least=0, default=16384),
    "DATALOADER.K_TRANSFORMS": Setting("augmented views of each training picture", "int", least=1),
    "DATALOADER.RETURN_IMG0": Setting("also give the picture without augmentation", "bool"),
    "DATALOADER.TRAIN_X.SAMPLER": Setting(
        "order of training pictures; WeightedRandomSampler draws each class as often as any other, however few its "
        "pictures are", "str", among=(*SAMPLERS, BALANCED),
    ),
    "DATALOADER.TRAIN_X.BATCH_SIZE": Setting("training pictures per step", "int", least=1, most=2**20),
    "DATALOADER.TRAIN_X.N_DOMAIN": Setting(UNUSED, "int"),
    "DATALOADER.TRAIN_X.N_INS": Setting(UNUSED, "int"),
    "DATALOADER.TRAIN_U.SAME_AS_X": Setting(UNUSED, "bool"),
    "DATALOADER.TRAIN_U.SAMPLER": Setting(UNUSED, "str"),
    "DATALOADER.TRAIN_U.BATCH_SIZE": Setting(UNUSED, "int"),
    "DATALOADER.TRAIN_U.N_DOMAIN": Setting(UNUSED, "int"),
    "DATALOADER.TRAIN_U.N_INS": Setting(UNUSED, "int"),
    "DATALOADER.TEST.SAMPLER": Setting("order of test pictures", "str", among=("SequentialSampler",)),
    "DATALOADER.TEST.BATCH_SIZE": Setting("test pictures at a time", "int", least=1, most=2**20),
    "MODEL.INIT_WEIGHTS": Setting(UNUSED, "str"),
    "MODEL.BACKBONE.NAME": Setting("a CLIP's name or file, or one of open_clip's, see docs/BACKBONES.md", "str"),
    "MODEL.BACKBONE.PRETRAINED": Setting(UNUSED, "bool"),
    "MODEL.HEAD.NAME": Setting(
        "a head that is fitted to the shots' features after training and added to the logits; empty: the method's usual",
        "str", among=HEADS, also=("",),
    ),
    "MODEL.HEAD.HIDDEN_LAYERS": Setting(UNUSED, "list[int]"),
    "MODEL.HEAD.ACTIVATION": Setting(UNUSED, "str"),
    "MODEL.HEAD.BN": Setting(UNUSED, "bool"),
    "MODEL.HEAD.DROPOUT": Setting(UNUSED, "float"),
    "MODEL.TEXT_ENCODER": Setting(
        "how prompts are encoded: each token once, or all positions", "str", among=("fast", "plain"), default="fast"
    ),
    "MODEL.TEXT_CHUNK": Setting("prompts encoded at a time; 0: by memory", "int", least=0, default=0),
    "MODEL.TEXT_MEMORY_MB": Setting(
        "what a chunk's activations may take; 0: half of a GPU's memory, or of what the CPU has free", "int", least=0,
        default=0,
    ),
    "OPTIM.NAME": Setting(
        "optimiser", "str", among=("adam", "amsgrad", "sgd", "rmsprop", "radam", "adamw")
    ),
    "OPTIM.LR": Setting("learning rate", "float", least=0, most=1e38),
    "OPTIM.WEIGHT_DECAY": Setting("of all that is learned", "float", least=0),
    "OPTIM.MOMENTUM": Setting("of sgd and rmsprop", "float", least=0, needs=MOMENTUM),
    "OPTIM.SGD_DAMPNING": Setting(
        "dampening of sgd's momentum", "float", least=0, needs=SGD, unless={"MOMENTUM": (0.0,)}
    ),
    "OPTIM.SGD_NESTEROV": Setting("Nesterov's momentum", "bool", needs=SGD),
    "OPTIM.RMSPROP_ALPHA": Setting("smoothing of rmsprop", "float", least=0, most=1, needs={"NAME": ("rmsprop",)}),
    "OPTIM.ADAM_BETA1": Setting("of the adam family", "float", least=0, most=1, needs=ADAM),
    "OPTIM.ADAM_BETA2": Setting("of the adam family", "float", least=0, most=1, needs=ADAM),
    "OPTIM.STAGED_LR": Setting(UNUSED, "bool"),
    "OPTIM.NEW_LAYERS": Setting(UNUSED, "list[str]"),
    "OPTIM.BASE_LR_MULT": Setting(UNUSED, "float"),
    "OPTIM.LR_SCHEDULER": Setting(
        "of the learning rate, per epoch", "str", among=("single_step", "multi_step", "cosine")
    ),
    "OPTIM.STEPSIZE": Setting(
        "epochs of the steps; -1: at the end", "list[int] | int", least=1, also=(-1,), needs=STEPPED
    ),
    "OPTIM.GAMMA": Setting("factor at each step", "float", least=0, needs=STEPPED),
    "OPTIM.MAX_EPOCH": Setting("passes over the training pictures", "int", least=1, most=10**6),
    "OPTIM.WARMUP_EPOCH": Setting("epochs of warm-up, none if not positive", "int", most=10**6),
    "OPTIM.WARMUP_TYPE": Setting("of warm-up", "str", among=("constant", "linear"), unless=NO_WARMUP),
    "OPTIM.WARMUP_CONS_LR": Setting(
        "rate of a constant warm-up", "float", least=0, needs={"WARMUP_TYPE": ("constant",)}, unless=NO_WARMUP
    ),
    "OPTIM.WARMUP_MIN_LR": Setting(
        "first rate of a linear warm-up", "float", least=0, needs={"WARMUP_TYPE": ("linear",)}, unless=NO_WARMUP
    ),
    "OPTIM.EPS": Setting("of the adam family, in the denominator", "float", above=0, default=1e-8, needs=ADAM),
    "OPTIM.SCHEDULE": Setting(
        "when the learning rate moves: after each epoch, or after each step, for which it is cosine without a warm-up",
        "str", among=("epoch", "step"), default="epoch",
    ),
    "OPTIM.LR_MIN": Setting(
        "what a cosine of steps ends at", "float", least=0, default=0.0, needs={"SCHEDULE": ("step",)}
    ),
    "OPTIM.WARMUP_RECOUNT": Setting("start the schedule after the warm-up", "bool", unless=NO_WARMUP),
    "TRAIN.CHECKPOINT_FREQ": Setting("epochs between checkpoints; 0: the last only", "int", least=0),
    "TRAIN.CHECKPOINT_MINUTES": Setting("minutes between further ones; 0: none", "float", least=0, default=10.0),
    "TRAIN.CUDA_GRAPH": Setting(
        "record the kernels of a step once and replay them: the same numbers, several times as fast on a GPU", "bool",
        default=True,
    ),
    "TRAIN.COMPILE": Setting(
        "let torch.compile fuse the encoders' kernels: a minute before the first step, then less time and memory for each, "
        "and other roundings; prompts that are encoded in chunks are not compiled", "bool", default=False,
    ),
    "TRAIN.PRINT_FREQ": Setting("steps between lines of the log", "int", least=1),
    "TRAIN.COUNT_ITER": Setting(UNUSED, "str"),
    "TEST.EVALUATOR": Setting("what evaluates", "str", among=("Classification",)),
    "TEST.PER_CLASS_RESULT": Setting("print each class's accuracy", "bool", unless=NO_TEST),
    "TEST.COMPUTE_CMAT": Setting("save the confusion matrix as cmat.pt", "bool", unless=NO_TEST),
    "TEST.NO_TEST": Setting("train only", "bool"),
    "TEST.SPLIT": Setting("what to evaluate on", "str", among=("val", "test"), unless=NO_TEST),
    "TEST.FINAL_MODEL": Setting(
        "which epoch's model is tested: the last, or the best on validation", "str", among=("last_step", "best_val")
    ),
    "TRAINER.NAME": Setting("method", "str"),
}  # fmt: skip


# --- nodes of a configuration -------------------------------------------------------------------------------------------

FOLLOWING = ("SIZE", "INTERPOLATION", "RESIZE_MODE", "PIXEL_MEAN", "PIXEL_STD")  # of INPUT: the backbone's where None


def add_shared(cfg: CfgNode) -> None:
    """Declares this project's settings that every method has; pictures are prepared as the backbone says until told."""
    declare(cfg, {key: setting for key, setting in SHARED.items() if setting.default is not None})
    for name in FOLLOWING:
        cfg.INPUT[name] = None


def declare(cfg: CfgNode, settings: dict[str, Setting]) -> None:
    """Adds settings with their defaults, and the nodes above them; existing values stay."""
    for key, setting in settings.items():
        *path, name = key.split(".")
        node = cfg
        for part in path:
            if part not in node:
                node[part] = CfgNode()
            node = node[part]
        if name not in node:
            node[name] = list(setting.default) if isinstance(setting.default, list) else setting.default


def declaring(options: type[Options]) -> Callable[[CfgNode], None]:
    """What a method gives to CoOp's own train.py as add_config."""

    def add_config(cfg: CfgNode) -> None:
        """Declares what all methods share and these options in a Dassl configuration; keys that are there stay."""
        add_shared(cfg)
        declare(cfg, options.settings())

    return add_config


def declare_all(cfg: CfgNode) -> None:
    """Declares what every method here has, shared and own, in a Dassl configuration; keys that are there stay."""
    add_shared(cfg)
    for method in methods().values():
        declare(cfg, method.options.settings())


def all_settings() -> dict[str, Setting]:
    """Every setting there is, by full name."""
    return SHARED | {key: s for method in methods().values() for key, s in method.options.settings().items()}


# --- configurations -----------------------------------------------------------------------------------------------------


def default_cfg() -> CfgNode:
    """Dassl's defaults and those of every method here."""
    cfg = get_cfg_default()
    declare_all(cfg)
    return cfg


def configure(files: Iterable[str], assigned: Iterable[tuple[str, Any]]) -> CfgNode:
    """Defaults < files, in order < assignments, in order; frozen, every value checked.

    Raises ValueError, in one line, for unknown settings, values of another type or outside their range, and files that
    are missing or hold something else.
    """
    cfg = default_cfg()
    known = all_settings()
    sets: dict[str, set[str]] = {}  # file -> the methods' keys whose settings it has
    for file in files:
        for key, value in _leaves(_read_yaml(file)):
            _assign(cfg, known, key, value, file)
            if key.startswith("TRAINER.") and key.count(".") > 1:
                sets.setdefault(file, set()).add(key.split(".")[1])
    for key, value in assigned:
        _assign(cfg, known, key, value, "the command line")
    name = cfg.TRAINER.NAME
    if name and name not in methods() and not DASSL_IS_INSTALLED:
        raise ValueError(
            f"{shown(name)} is unknown{did_you_mean(name, methods())} Known trainers: {', '.join(sorted(methods()))}"
        )
    own = methods()[name].options.KEY if name in methods() else ""
    for file, keys in sets.items():
        if own and own not in keys:
            raise ValueError(f"{file} has settings of TRAINER.{min(keys)}, not of {name}: give a recipe of its own")
    _check_together(cfg)
    if cfg.SEED < 0:
        cfg.SEED = random.SystemRandom().randrange(2**31)
        print(f"No seed was given; drew {cfg.SEED} (--seed {cfg.SEED} repeats this run)")
    cfg.freeze()
    return cfg


def _check_together(cfg: CfgNode) -> None:
    """Raises ValueError for settings that are valid alone but contradict each other."""
    i, o = cfg.INPUT, cfg.OPTIM
    groups = [list(group) for key, own in flat(cfg).items() if key.endswith(".TEMPLATE_GROUPS") for group in own]
    templates = [t for group in ([cfg.DATASET.TEMPLATE or "{}"], *groups) for t in group]
    placeless = next((t for t in templates if t.count("{}") != 1), "")
    faults = {
        f"INPUT.RRCROP_SCALE is {i.RRCROP_SCALE}: use the smaller share first": i.RRCROP_SCALE[0] > i.RRCROP_SCALE[1],
        f"INPUT.GB_K is {i.GB_K}: use an odd number": i.GB_K % 2 == 0,
        f'the template "{placeless}" needs exactly one {{}} for the class name': placeless,
        "TEMPLATE_GROUPS has an empty group: leave it out": [] in groups,
        "OPTIM.SCHEDULE is step: use OPTIM.LR_SCHEDULER cosine and OPTIM.WARMUP_EPOCH 0": o.SCHEDULE == "step"
        and (o.LR_SCHEDULER != "cosine" or o.WARMUP_EPOCH > 0),
        "OPTIM.SGD_NESTEROV is True: use an OPTIM.MOMENTUM above 0, and OPTIM.SGD_DAMPNING 0": o.SGD_NESTEROV
        and (o.MOMENTUM == 0 or o.SGD_DAMPNING != 0),
        "LOG is wandb, and the package wandb is missing: pip install wandb": cfg.LOG == "wandb"
        and importlib.util.find_spec("wandb") is None,
        "INPUT.NO_TRANSFORM is True: no method here takes pictures as they are read": i.NO_TRANSFORM,
        f"OPTIM.STEPSIZE is {o.STEPSIZE}: multi_step takes a rising list of epochs": o.LR_SCHEDULER == "multi_step"
        and not _rises(o.STEPSIZE),
        f"OPTIM.STEPSIZE is {o.STEPSIZE}: use one epoch or more": o.STEPSIZE in ((), []),
        f"OPTIM.ADAM_BETA1 and 2 are {o.ADAM_BETA1} and {o.ADAM_BETA2}: use less than 1": 1
        in (o.ADAM_BETA1, o.ADAM_BETA2),
    }
    for fault, is_there in faults.items():
        if is_there:
            raise ValueError(fault)


def _rises(epochs: Any) -> bool:
    return isinstance(epochs, list | tuple) and list(epochs) == sorted(set(epochs)) and min(epochs, default=0) > 0


def in_pairs(words: list[str]) -> list[tuple[str, str]]:
    """KEY value KEY value ... as pairs. Raises ValueError for a key without a value."""
    if len(words) % 2:
        raise ValueError(f'settings come in pairs of key and value, but "{words[-1]}" stands alone')
    return list(zip(words[::2], words[1::2], strict=True))


def _assign(cfg: CfgNode, known: dict[str, Setting], key: str, value: Any, where: str) -> None:
    *path, name = key.split(".")
    node: Any = cfg
    for part in path:
        node = node.get(part) if isinstance(node, CfgNode) else None
    if not isinstance(node, CfgNode) or name not in node or isinstance(node[name], CfgNode):
        raise ValueError(f"{where} sets {shown(key)}, which does not exist{did_you_mean(key, known, 0.4)}")
    if key in known:
        value = known[key].checked(key, _decoded(value, known[key].kind))
    else:  # a setting of Dassl's own trainers
        value = _decoded(value, "")
    now = node[name]
    node[name] = tuple(value) if isinstance(now, tuple) and isinstance(value, list) else (
        list(value) if isinstance(now, list) and isinstance(value, tuple) else value)  # fmt: skip


def _decoded(value: Any, kind: str) -> Any:
    """Text as the Python literal that it spells, if any; for text settings only quoted text is taken as a literal.

    A list may stand in a yaml file, whose name is given: what it holds is then the value.
    """
    if not isinstance(value, str):
        return value
    if kind.startswith("list[") and value.lower().endswith((".yaml", ".yml")):
        return _read_yaml(value, list)
    try:
        literal = ast.literal_eval(value)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return value
    text_only = "str" in [part.strip() for part in kind.split("|")]
    is_other = isinstance(literal, str) or any(fits(part.strip(), literal) for part in kind.split("|"))
    return value if text_only and not is_other else literal


def _read_yaml(path: str, kind: type = dict) -> Any:
    file = Path(path)
    if not file.is_file():
        known = sorted(p.name for p in file.parent.iterdir()) if file.parent.is_dir() else []
        raise ValueError(f"no config file {path}{did_you_mean(file.name, known)}")
    if file.suffix.lower() not in (".yaml", ".yml"):
        raise ValueError(f"{path} is no configuration: only .yaml files are read")
    found = read_yaml(file) or kind()
    if not isinstance(found, kind):
        wanted = "settings" if kind is dict else "a list"
        raise ValueError(f"{path} is no configuration: it holds {type(found).__name__}, not {wanted}")
    return found


def _leaves(node: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def flat(cfg: CfgNode) -> dict[str, Any]:
    """A configuration as one dictionary of full names."""
    return dict(_leaves(cfg))


def reference() -> str:
    """docs/SETTINGS.md."""
    defaults = flat(default_cfg())
    groups = {"All methods": SHARED} | {
        f"TRAINER.{m.options.KEY}": m.options.settings() for m in methods().values() if m.options.KEY
    }
    lines = ["# Settings", "",
             "Made by `python scripts/make_files.py` from `trainers/core/settings/configure.py` and each method's options.",
             "Given as `KEY value` after a command, or in a yaml file. The scripts refuse those "
             "that their own words and options set (SEED, DATASET.NAME, DATASET.NUM_SHOTS and the like). Relative paths "
             "start at the project's folder. A list may stand in a yaml file of its own, whose name is then the value.", "",
             "A method's settings are given in full, as in `TRAINER.MOCOOP.TOP_K 3`. The defaults are those without a "
             "recipe; every script uses one (`configs/trainers/<Method>/`), which overrides them, and the command line "
             "overrides both.", ""]  # fmt: skip
    for title, settings in groups.items():
        lines += [f"## {title}", "", "| setting | default | may be | what it does |", "|---|---|---|---|"]
        lines += [
            f"| `{key.removeprefix(title + '.')}` | `{defaults[key]!r}` | {setting.allowed()} | {setting.help} |"
            for key, setting in settings.items() if setting.help != UNUSED
        ]  # fmt: skip
        lines.append("")
    unused = [f"`{key}`" for key, setting in SHARED.items() if setting.help == UNUSED]
    lines += [f"Dassl's, accepted and used by no method here: {', '.join(unused)}."]
    return "\n".join(lines)
