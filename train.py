"""One run: configuration, trainer, train or evaluate. CoOp's command line, flag for flag.

    python train.py --root data --seed 1 --trainer MoCoOp --dataset-config-file configs/datasets/demo.yaml \\
        --config-file configs/trainers/MoCoOp/small.yaml --output-dir output/try DATASET.NUM_SHOTS 16

Settings: defaults < dataset config < method config < command line. Exit status: 0 done, 1 wrong input or failure,
75 stopped on request and ready to be continued by the same command.
"""

import argparse
import difflib
import errno
import os
import random
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yacs.config import CfgNode


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], epilog="See docs/ for the settings, and scripts/ for whole protocols."
    )
    parser.add_argument("--root", default="", help="folder of the datasets (default: data)")
    parser.add_argument("--output-dir", default="", help="folder of this run")
    parser.add_argument(
        "--same-as", action="append", default=[], metavar="DIR",
        help="take the finished run in that folder if its settings are these, instead of training again (may be repeated)",
    )  # fmt: skip
    parser.add_argument("--resume", default="", help="folder to resume from (default: the output folder)")
    parser.add_argument("--seed", type=int, default=-1, help="negative: draw one and say which")
    parser.add_argument("--source-domains", nargs="+", help="domains to train on, where a dataset has domains")
    parser.add_argument("--target-domains", nargs="+", help="domains to test on")
    parser.add_argument("--transforms", nargs="+", help="data augmentation, by name")
    parser.add_argument("--config-file", default="", help="method config (configs/trainers/...)")
    parser.add_argument("--dataset-config-file", default="", help="dataset config (configs/datasets/...)")
    parser.add_argument("--trainer", default="", help="MoCoOp, CoOp, CoCoOp, LASP, ZeroshotCLIP, ...")
    parser.add_argument("--backbone", default="", help="a CLIP model's name or file")
    parser.add_argument("--head", default="", help="accepted for CoOp's sake; CLIP has no head")
    parser.add_argument("--eval-only", action="store_true", help="evaluate a trained model")
    parser.add_argument("--model-dir", default="", help="folder of the trained run, with --eval-only")
    parser.add_argument("--load-epoch", type=int, help="which epoch's weights, with --eval-only (default: the last)")
    parser.add_argument("--no-train", action="store_true", help="build everything, then stop")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, help="settings, as in OPTIM.MAX_EPOCH 10 TRAINER.MOCOOP.TOP_K 1"
    )
    return parser.parse_args()


def setup_cfg(args: argparse.Namespace) -> "CfgNode":
    """Defaults < dataset config < method config < command line. Raises ValueError for an unknown key."""
    cfg = default_cfg()
    for file in (args.dataset_config_file, args.config_file):
        if file:
            check_keys(cfg, keys_of_file(file), file)
            cfg.merge_from_file(file)
    flags = {
        "DATASET.ROOT": args.root,
        "OUTPUT_DIR": args.output_dir,
        "RESUME": args.resume,
        "DATASET.SOURCE_DOMAINS": args.source_domains,
        "DATASET.TARGET_DOMAINS": args.target_domains,
        "INPUT.TRANSFORMS": args.transforms,
        "TRAINER.NAME": args.trainer,
        "MODEL.BACKBONE.NAME": args.backbone,
        "MODEL.HEAD.NAME": args.head,
    }
    cfg.merge_from_list([item for key, value in flags.items() if value for item in (key, value)])
    if args.seed >= 0:
        cfg.SEED = args.seed
    opts = args.opts[1:] if args.opts[:1] == ["--"] else args.opts
    if len(opts) % 2:
        raise ValueError(f'settings come in pairs of key and value, but "{opts[-1]}" stands alone')
    check_keys(cfg, opts[::2], "the command line")
    cfg.merge_from_list(opts)
    if cfg.SEED < 0:
        cfg.SEED = random.SystemRandom().randrange(2**31)
        print(f"No seed was given; drew {cfg.SEED} (--seed {cfg.SEED} repeats this run)")
    cfg.freeze()
    return cfg


def default_cfg() -> "CfgNode":
    """Dassl's defaults and those of every method here."""
    from dassl.config import get_cfg_default

    cfg = get_cfg_default()
    for module in method_modules():
        module.add_config(cfg)
    return cfg


def method_modules() -> list[Any]:
    """The modules of trainers/ that declare settings, each of which registers its trainers."""
    import importlib
    import pkgutil

    import trainers

    modules = [importlib.import_module(f"trainers.{m.name}") for m in pkgutil.iter_modules(trainers.__path__)]
    return [module for module in modules if hasattr(module, "add_config")]


def keys_of_file(path: str) -> list[str]:
    import yaml

    if not os.path.isfile(path):
        folder = os.path.dirname(path) or "."
        known = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        near = difflib.get_close_matches(os.path.basename(path), known, n=1)
        raise ValueError(f"no config file {path}" + (f'; did you mean "{near[0]}"?' if near else ""))
    with open(path) as file:
        return list(_leaves(yaml.safe_load(file) or {}))


def _leaves(node: dict, prefix: str = "") -> list[str]:
    found = []
    for key, value in node.items():
        found += _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]
    return found


def check_keys(cfg: "CfgNode", keys: list[str], where: str) -> None:
    """Raises ValueError, naming the nearest key, if `where` sets one that does not exist."""
    known = _leaves(cfg)
    for key in keys:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
            raise ValueError(
                f'{where} sets "{key}", which does not exist' + (f'; did you mean "{near[0]}"?' if near else "")
            )


def print_settings(args: argparse.Namespace, cfg: "CfgNode") -> None:
    import platform

    import torch
    import torchvision

    from trainers import DASSL_IN_USE

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print("** Arguments **")
    for key, value in sorted(vars(args).items()):
        print(f"{key}: {value}")
    print("** Config **")
    print(cfg)
    print("** System **")
    print(
        f"python {platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}, {device}"
    )
    print(f"Dassl: {DASSL_IN_USE}\n")


def run(args: argparse.Namespace) -> None:
    import trainers  # noqa: F401  (before dassl, which it makes importable)
    from trainers.run_folder import RunFolder, material_settings, settings_hash

    cfg = setup_cfg(args)
    import torch
    from dassl.engine import build_trainer
    from dassl.utils import set_random_seed, setup_logger

    import datasets
    from trainers.base import set_deterministic

    datasets.register_all()
    folder = RunFolder(cfg.OUTPUT_DIR)
    settings = material_settings(cfg, cfg.TRAINER.NAME.upper())
    if args.eval_only:
        settings |= {"MODEL_DIR": args.model_dir, "LOAD_EPOCH": args.load_epoch}
    digest = settings_hash(settings)
    with folder.held():
        for other in args.same_as:
            if folder.take_over(other, digest):
                print(f"{cfg.OUTPUT_DIR}: the run in {other} has these settings and was copied")
        folder.claim(settings)
        finished = folder.results()
        if finished is not None and finished.get("config_sha256", digest) == digest:
            print(f"{cfg.OUTPUT_DIR} is finished already (accuracy {finished['accuracy']:.2f} %)")
            return
        set_random_seed(cfg.SEED)
        setup_logger(cfg.OUTPUT_DIR)
        print(f"Setting fixed seed: {cfg.SEED}")
        if cfg.DETERMINISTIC:
            set_deterministic()
        elif torch.cuda.is_available() and cfg.USE_CUDA:
            torch.backends.cudnn.benchmark = True
        print_settings(args, cfg)
        begin = time.time()
        trainer = build_trainer(cfg)
        if args.eval_only or not getattr(trainer, "trains", True):
            trainer.load_model(args.model_dir, epoch=args.load_epoch)
            trainer.test()
        elif args.no_train:
            return
        else:
            trainer.train()
        if getattr(trainer, "results", None) is None:  # TEST.NO_TEST, or a trainer that is not ours
            return
        identity = getattr(trainer, "trained_on", {}) | trainer.identity()
        folder.finish(
            trainer.results
            | {
                **{key: value for key, value in identity.items() if key != "classnames"},
                "n_classes": len(trainer.classnames),
                "shots": cfg.DATASET.NUM_SHOTS,
                "subsample_classes": cfg.DATASET.SUBSAMPLE_CLASSES,
                "seed": cfg.SEED,
                "epochs": cfg.OPTIM.MAX_EPOCH,
                "seconds": round(time.time() - begin, 1),
                "test_seconds": round(trainer.test_seconds, 2),
                "config_sha256": digest,
                "config": settings,
            }
        )


def main() -> None:
    args = parse_arguments()
    try:
        run(args)
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, KeyError, OSError, EOFError, FloatingPointError, MemoryError, RuntimeError) as error:
        if args.traceback or not _is_explained(error):
            traceback.print_exc()
        print(f"error: {_one_line(error)}", file=sys.stderr)
        sys.exit(1)


def _is_explained(error: BaseException) -> bool:
    """Whether the message alone tells what to do; a RuntimeError out of torch does so only for what _one_line knows."""
    return type(error) is not RuntimeError or _is_memory(error) or _lost_worker(error)


def _is_memory(error: BaseException) -> bool:
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or any(word in str(error) for word in ("can't allocate memory", "bad_alloc"))
    )


def _lost_worker(error: BaseException) -> bool:
    """Torch says so, or the pipe through which the worker's tensors came breaks (a failed download is a plain OSError)."""
    return isinstance(error, ConnectionError | EOFError) or str(error).startswith("DataLoader worker (pid")


def _one_line(error: BaseException) -> str:
    """What was wrong and what to do."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    lines = [line for line in text.splitlines() if line.strip()] or [type(error).__name__]
    if _is_memory(error):
        return (
            f"out of memory ({lines[0][:120]}): set MODEL.TEXT_CHUNK (prompts at a time) lower and start again, or "
            "DATALOADER.TRAIN_X.BATCH_SIZE, in another --output-dir"
        )
    if _lost_worker(error):
        return (
            f"a data-loading worker was killed or died ({lines[0][:120]}), often for want of memory: lower "
            "DATALOADER.NUM_WORKERS or DATALOADER.CACHE_MB, then start again; the run continues"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{text}: make room, then start again; the run continues from its last checkpoint"
    if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"{text}: make it writable, or choose another --output-dir"
    return lines[-1].split("ImageError: ")[-1] if lines[0].startswith("Caught") else lines[0]


if __name__ == "__main__":
    main()
