"""Write a trained run as a folder that needs nothing of this project: weights, ONNX, configuration, model card.

    python export.py output/fewshot/demo/shots_16/MoCoOp/small/seed1 my_model
    python export.py RUN my_model --classnames "red panda, okapi"      for other classes
    python export.py RUN my_model --push ORG/NAME                      and put it on the Hugging Face hub

The ONNX is run and held against PyTorch before the folder appears.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ...paths import version
from ..runs.results import read_results
from ..settings.errors import one_line
from . import checked_names, open_model
from .export import export, hub_model
from .predict import names_from


def results_of(folder: Path) -> dict[str, Any]:
    """Of a run, or of the run that was exported into the folder."""
    if (folder / "results.json").is_file():
        return read_results(folder / "results.json")
    exported = folder / "config.json"
    return dict(json.loads(exported.read_text()).get("results", {})) if (folder / "model.onnx").is_file() else {}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"MoCoOp {version()}")
    parser.add_argument("run", help="folder of a finished run")
    parser.add_argument("folder", type=Path, help="where to write; not there yet, or an earlier export")
    parser.add_argument(
        "--classnames", help="other classes: names with commas between them, or a file with a line each"
    )
    parser.add_argument("--epoch", type=int, help="which epoch's model (default: the best on validation, or the last)")
    parser.add_argument("--backbone", default="", help="the backbone's file, where it lies elsewhere now")
    parser.add_argument(
        "--push", metavar="ORG/NAME", help="also put it on the Hugging Face hub, under your account there"
    )
    args = parser.parse_args()
    try:
        names = checked_names(names_from(args.classnames)) if args.classnames is not None else None
        model = open_model(args.run, args.epoch, args.backbone, names)
        results = results_of(Path(args.run)) if names is None and args.epoch is None else {}
        apart = export(model, args.folder, results)
        print(f"Wrote {args.folder}: ONNX is within {apart:.0e} of PyTorch")
        if args.push:
            print(hub_model()(model, results).push_to_hub(args.push))
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1
    return 0
