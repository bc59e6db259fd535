"""One run: configuration, trainer, train or evaluate. CoOp's command line, flag for flag.

    python train.py --root data --seed 1 --trainer MoCoOp --dataset-config-file configs/datasets/demo.yaml \\
        --config-file configs/trainers/MoCoOp/small.yaml --output-dir output/try DATASET.NUM_SHOTS 16

Settings: defaults < dataset config < method config < command line. Exit status: 0 done, 1 wrong input or failure,
75 stopped on request and ready to be continued by the same command.
"""

import argparse
import contextlib
import io
import json
import os
import shlex
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.core.ranks.process_group import fail, joined, let_one_speak
from trainers.core.settings.configure import configure, in_pairs
from trainers.core.settings.errors import is_explained, one_line
from trainers.core.settings.screen import set_up_screen
from trainers.paths import version

if TYPE_CHECKING:
    from yacs.config import CfgNode

    from trainers.core.ranks.collectives import Ranks
    from trainers.core.runs.folder import RunFolder
    from trainers.core.runs.identity import Identity


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line, or `words` in its place."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        epilog="See docs/SETTINGS.md for the settings, and scripts/ for whole protocols.",
    )
    parser.add_argument("--version", action="version", version=f"MoCoOp {version()}")
    parser.add_argument("--root", default="", help="folder of the datasets (default: data)")
    parser.add_argument("--output-dir", default="", help="folder of this run")
    parser.add_argument(
        "--same-as", action="append", default=[], metavar="DIR",
        help="take the finished run in that folder if it is this one, instead of training again (may be repeated)",
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
    parser.add_argument("--about", default="{}", help=argparse.SUPPRESS)  # what scripts/run.py notes in run.json
    parser.add_argument("opts", nargs="*", help="settings, as in OPTIM.MAX_EPOCH 10 TRAINER.MOCOOP.TOP_K 1")
    return parser.parse_intermixed_args(words)  # options may stand before, between and after settings


def setup_cfg(args: argparse.Namespace) -> "CfgNode":
    """Defaults < dataset config < method config < command line. Raises ValueError, in one line, for what is wrong."""
    flags = {
        "DATASET.ROOT": args.root,
        "OUTPUT_DIR": args.output_dir,
        "RESUME": args.resume,
        "SEED": args.seed if args.seed >= 0 else None,
        "DATASET.SOURCE_DOMAINS": args.source_domains,
        "DATASET.TARGET_DOMAINS": args.target_domains,
        "INPUT.TRANSFORMS": args.transforms,
        "TRAINER.NAME": args.trainer,
        "MODEL.BACKBONE.NAME": args.backbone,
        "MODEL.HEAD.NAME": args.head,
    }
    files = [file for file in (args.dataset_config_file, args.config_file) if file]
    given = [(key, value) for key, value in flags.items() if value not in (None, "")]
    return configure(files, [*given, *in_pairs(settings_given(args))])


def settings_given(args: argparse.Namespace) -> list[str]:
    """KEY value KEY value ..., as the command line has them."""
    return args.opts[1:] if args.opts[:1] == ["--"] else args.opts


def refuse_idle_words(args: argparse.Namespace, cfg: "CfgNode") -> None:
    """Raises ValueError for words that could do nothing in this call: who wrote them expects something else of it."""
    from trainers.core.settings.idle import why_idle
    from trainers.methods import methods

    own = methods().get(cfg.TRAINER.NAME)
    trains, keeps = own is None or own.takes_steps, own is None or own.keeps_a_model
    pictures = [f"DATASET.{name}" for name in ("FOLDER", "SPLIT_FILE", "NAMES_FILE", "FOLDS") if cfg.DATASET[name]]
    resumes = bool(cfg.RESUME) and os.path.abspath(cfg.RESUME) != os.path.abspath(cfg.OUTPUT_DIR)
    faults = {
        f"--model-dir {args.model_dir} is for --eval-only: to go on with that run, give --resume": args.model_dir
        and not args.eval_only,
        f"--load-epoch {args.load_epoch} is for --eval-only": args.load_epoch is not None and not args.eval_only,
        "--eval-only and --no-train exclude each other": args.eval_only and args.no_train,
        f"{cfg.TRAINER.NAME} is tested by its clients, in its rounds: leave out --eval-only": own is not None
        and own.federated
        and args.eval_only,
        "--eval-only and --resume exclude each other: the trained model is named by --model-dir": args.eval_only
        and cfg.RESUME,
        f"{cfg.TRAINER.NAME} trains nothing that could be resumed: leave out --resume": not trains and cfg.RESUME,
        f"{cfg.TRAINER.NAME} is made anew from its pictures: leave out --model-dir and --load-epoch": not keeps
        and (args.model_dir or args.load_epoch is not None),
        f"nothing to resume in {cfg.RESUME}: it holds no checkpoint": resumes
        and not os.path.isfile(os.path.join(cfg.RESUME, "prompt_learner", "checkpoint")),
        f"{', '.join(pictures)} is for FolderDataset, not for {cfg.DATASET.NAME}": pictures
        and cfg.DATASET.NAME != "FolderDataset",
        "DATASET.SUBSAMPLE_CLASSES joint is an evaluation of a model of the base classes: give --eval-only": keeps
        and cfg.DATASET.SUBSAMPLE_CLASSES == "joint"
        and not args.eval_only,
        "DATASET.SPLIT_FILE names the classes itself: leave out DATASET.NAMES_FILE": cfg.DATASET.SPLIT_FILE
        and cfg.DATASET.NAMES_FILE,
    }
    for fault, is_there in faults.items():
        if own is not None and is_there:  # of others' trainers and datasets nothing is known
            raise ValueError(fault)
    for key in settings_given(args)[::2]:
        if why_idle(key, cfg):
            raise ValueError(why_idle(key, cfg))


def print_settings(args: argparse.Namespace, cfg: "CfgNode") -> None:
    import platform

    import torch
    import torchvision

    from trainers import DASSL_IN_USE

    on_gpu = cfg.USE_CUDA and torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads"
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


def what_this_is(args: argparse.Namespace, cfg: "CfgNode") -> "Identity":
    """What run the command line means; for that the backbone is hashed, and the pictures are found. Prints nothing."""
    from dassl.engine import TRAINER_REGISTRY
    from dassl.utils import check_availability, set_random_seed

    from trainers.core.ranks.collectives import this_rank
    from trainers.core.runs.identity import Identity, material_settings
    from trainers.core.training.trainer import PromptTrainer

    check_availability(cfg.TRAINER.NAME, TRAINER_REGISTRY.registered_names())
    kind: Any = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    if not issubclass(kind, PromptTrainer):
        if this_rank().several:
            raise ValueError(f"{cfg.TRAINER.NAME} knows nothing of ranks: start it with one process")
        as_dassl_would(cfg)
        return Identity(material_settings(cfg, cfg.TRAINER.NAME.upper()))
    model = model_digest(args) if args.eval_only and kind.method().keeps_a_model else ""
    set_random_seed(cfg.SEED)
    with contextlib.redirect_stdout(io.StringIO()):
        return kind.run_identity(cfg, model)


def as_dassl_would(cfg: "CfgNode") -> None:
    """For a trainer that is not ours, and follows no backbone: what is left open of INPUT is Dassl's default."""
    from dassl.config import get_cfg_default

    cfg.defrost()
    for name, value in get_cfg_default().INPUT.items():
        if cfg.INPUT[name] is None:
            cfg.INPUT[name] = value
    cfg.freeze()


def model_digest(args: argparse.Namespace) -> str:
    """Which trained model an evaluation means."""
    from trainers.core.training import checkpoints

    state = checkpoints.load(checkpoints.model_file(args.model_dir, args.load_epoch))
    return checkpoints.digest_of({name: value for name, value in state.items() if name != "seconds"})


def run(args: argparse.Namespace, cfg: "CfgNode") -> None:
    from dassl.engine import build_trainer
    from dassl.utils import set_random_seed, setup_logger

    import datasets
    from trainers.core.ranks.collectives import this_rank
    from trainers.core.runs.folder import RunFolder
    from trainers.core.training import device
    from trainers.methods import methods, register_all

    register_all()
    datasets.register_all()
    ranks = this_rank()
    folder = RunFolder(cfg.OUTPUT_DIR)
    with contextlib.ExitStack() as inside:
        identity = begun(args, cfg, folder, inside) if ranks.first else None
        if not ranks.broadcast(identity is not None):
            return
        identity = identity or what_this_is(args, cfg)  # each rank reads data and backbone for itself
        if ranks.several:
            ranks.assert_same("run", identity.digest())
        set_random_seed(cfg.SEED)
        if ranks.first:
            setup_logger(cfg.OUTPUT_DIR)
        print(f"Setting fixed seed: {cfg.SEED}")
        device.set_up(cfg.DETERMINISTIC, cfg.TF32)
        print_settings(args, cfg)
        begin = time.monotonic()
        trainer = build_trainer(cfg)
        trainer.contents = identity.contents
        if args.no_train:
            return
        known = methods().get(cfg.TRAINER.NAME)
        if args.eval_only or (known is not None and not known.takes_steps):
            trainer.is_trained_here = not args.eval_only
            if args.eval_only:
                trainer.load_model(args.model_dir, epoch=args.load_epoch)
            else:
                trainer.trained()
            trainer.test()
            if not args.eval_only:
                trainer.save_fitted()
        else:
            trainer.train()
        # not with TEST.NO_TEST, nor by a trainer that is not ours
        if identity is not None and getattr(trainer, "results", None) is not None:
            note_mistakes(trainer, cfg)
            seconds = time.monotonic() - begin + getattr(trainer, "seconds_before", 0.0)
            folder.finish(results_of(trainer, cfg, seconds) | {"identity": identity.record()})


def note_mistakes(trainer: Any, cfg: "CfgNode") -> None:
    """Writes which classes were taken for which, and the surest mistakes; says so where one class was taken for all."""
    from trainers.core.runs import confusion, mistakes

    if not hasattr(trainer, "confusion"):  # a trainer that is not ours
        return
    names = trainer.asked_classnames()
    said = confusion.collapsed(trainer.confusion, names)
    if said:
        print(f"Note: {said}")
    confusion.write(Path(cfg.OUTPUT_DIR), trainer.confusion, names)
    mistakes.write(Path(cfg.OUTPUT_DIR), trainer.mistakes)


def begun(
    args: argparse.Namespace, cfg: "CfgNode", folder: "RunFolder", inside: contextlib.ExitStack
) -> "Identity | None":
    """What run this is, its folder held until `inside` ends; None if it is finished already."""
    about = {"command": shlex.join(["python", *sys.argv])} | json.loads(args.about)
    identity = what_this_is(args, cfg)
    folder.refuse_other(identity)
    inside.enter_context(folder.held())
    for other in args.same_as:
        if folder.take_over(other, identity, about):
            print(f"{cfg.OUTPUT_DIR}: the run in {other} is this one and was copied")
    folder.claim(identity, about)
    finished = folder.results()
    if finished is None:
        return identity
    print(f"{cfg.OUTPUT_DIR} is finished already (accuracy {finished['accuracy']:.2f} %)")
    return None


def results_of(trainer: Any, cfg: "CfgNode", seconds: float) -> dict[str, Any]:
    """Metrics, what the model was trained with, and what it was asked."""
    from trainers.core.ranks.collectives import this_rank

    asked = {
        "dataset": cfg.DATASET.NAME,
        "seed": cfg.SEED,
        "shots": cfg.DATASET.NUM_SHOTS,
        "subsample_classes": cfg.DATASET.SUBSAMPLE_CLASSES,
        "epochs": cfg.OPTIM.MAX_EPOCH,
        "split": cfg.TEST.SPLIT,
    }
    identity = {key: value for key, value in trainer.identity().items() if key != "classnames"}
    trained = getattr(trainer, "trained_on", None)
    if trained is None:
        trained = {key: value for key, value in asked.items() if key != "split"}
        trained["epochs"] = cfg.OPTIM.MAX_EPOCH if trainer.method().takes_steps else 0
    shown = {key: trained.get(key) for key in ("seed", "shots", "epochs")}
    if not trainer.method().draws:  # no picture was drawn by a seed
        shown["shots"] = None
        shown["seed"] = cfg.SEED if cfg.DATASET.FOLDS else None
    train_seconds = max(0.0, seconds - trainer.test_seconds)
    return {
        **trainer.results,
        **identity,
        **shown,
        "n_classes": len(trainer.classnames),
        "subsample_classes": cfg.DATASET.SUBSAMPLE_CLASSES,
        "ranks": this_rank().size,
        "device": trainer.device.type,
        "precision": getattr(trainer, "precision", "fp32"),
        "trained": trained,
        "asked": asked,
        "seconds": round(seconds, 1),
        "train_seconds": round(train_seconds, 1),
        "test_seconds": round(trainer.test_seconds, 2),
    }


def main() -> None:
    args = parse_arguments()
    set_up_screen()
    let_one_speak()
    try:
        cfg = setup_cfg(args)
        refuse_idle_words(args, cfg)
        with joined(cfg.USE_CUDA) as ranks:
            say_the_same(ranks, args, cfg)
            run(args, cfg)
    except KeyboardInterrupt:
        fail("", 130)
        sys.exit(130)
    except (ValueError, KeyError, OSError, EOFError, FloatingPointError, MemoryError, RuntimeError, TypeError) as error:
        if hasattr(signal, "SIGCHLD"):  # torch would raise again while Python puts away a worker that was killed
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if args.traceback or not is_explained(error):
            traceback.print_exc()
        fail(f"error: {one_line(error)}")
        sys.exit(1)


def say_the_same(ranks: "Ranks", args: argparse.Namespace, cfg: "CfgNode") -> None:
    """All ranks take rank 0's seed, which it may have drawn. Raises ValueError where they were told different things."""
    if not ranks.several:
        return
    cfg.defrost()
    cfg.SEED = ranks.broadcast(cfg.SEED)
    cfg.freeze()
    ranks.assert_same("configuration", cfg.dump())
    ranks.assert_same("task", f"{args.eval_only} {args.no_train} {args.load_epoch}")


if __name__ == "__main__":
    main()
