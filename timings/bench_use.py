"""Trained runs in use, against their evaluation and against bare CLIP: python timings/bench_use.py DATASET_FOLDER RUN...

DATASET_FOLDER holds images/ and split.json or split_<name>.json, the test pictures of the runs. Hits over the whole test
set, from predict.py's CSV, from load_run, and from the exported ONNX, beside those of results.json; and milliseconds per
picture of batches of 64.
"""

import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import onnxruntime
import torch
from common import DEVICE, ROOT, alternate, ratio, report, spread

from trainers import load_run
from trainers.core.inference.export import export


def main() -> None:
    data, *runs = map(Path, sys.argv[1:])
    (split,) = data.glob("split*.json")
    record = json.loads(split.read_text())
    items = record.get("parts", record)["test"]
    paths = [str(data / "images" / path) for path, *_ in items]
    rows, kept = [], {}
    for run in runs:
        model = load_run(run).to(DEVICE)
        names = [item[2] for item in items]
        images = torch.stack([model.read(path) for path in paths])
        loaded = torch.cat([model(part).cpu() for part in images.split(64)])
        with tempfile.TemporaryDirectory() as place:
            table = Path(place) / "found.csv"
            command = [sys.executable, ROOT / "predict.py", run, *paths, "--top", "1", "--csv", table]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            with open(table, newline="") as file:
                told = [row["class"] for row in csv.DictReader(file)]
            apart = export(load_run(run), Path(place) / "out")
            session = onnxruntime.InferenceSession(str(Path(place) / "out" / "model.onnx"))
            onnx = torch.cat(
                [torch.from_numpy(session.run(None, {"pictures": part.numpy()})[0]) for part in images.split(64)]
            )
        hits = [sum(a == b for a, b in zip(told, names, strict=True))]
        hits += [
            sum(model.classnames[c] == n for c, n in zip(found.argmax(1), names, strict=True))
            for found in (loaded, onnx)
        ]
        part = images[:64].to(DEVICE)
        times = alternate({"ours": lambda m=model, p=part: m(p), "bare": torch.no_grad()(
            lambda m=model, p=part: m.backbone.encode_image(p))}, rounds=15)  # fmt: skip
        evaluated = json.loads((run / "results.json").read_text())["correct"]
        per_picture = {key: [1000 * t / len(part) for t in found] for key, found in times.items()}
        largest = float((onnx - loaded).abs().max())
        rows.append([model.method, evaluated, *hits, f"{largest:.0e}", spread(per_picture["ours"]),
                     spread(per_picture["bare"]), f"{ratio(times['ours'], times['bare']):.2f}"])  # fmt: skip
        kept[model.method] = {"apart": apart, **times}
    header = ["", "evaluation", "predict.py", "load_run", "ONNX", "largest difference of a logit", "ms per picture",
              "bare CLIP, ms", "ratio"]  # fmt: skip
    report("use", f"Hits of {len(items)} test pictures, and time per picture", header, rows, times=kept)


if __name__ == "__main__":
    main()
