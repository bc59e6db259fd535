"""A list of people's own pictures, in a CSV, TSV or JSON Lines file: path, class, and if wanted split and group.

    path,class,split,group
    scans/0001.png,crack,train,part-17
    scans/0002.png,nominal,test,part-18

Paths are relative to the file's folder. A group (a patient, a part, a film) lies in one part of the split alone.
"""

import csv
import io
import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dassl.data.datasets import Datum

from trainers.core.loading.read import is_picture
from trainers.core.settings.errors import did_you_mean
from trainers.core.settings.text_files import MANIFESTS, read_text

COLUMNS = {
    "path": ("path", "picture", "image", "file", "filename", "file_name", "filepath"),
    "class": ("class", "label", "classname", "class_name", "category"),
    "split": ("split", "part", "set"),
    "group": ("group", "group_id", "patient", "subject", "series"),
}
PARTS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
         "test": "test", "testing": "test"}  # fmt: skip
BETWEEN_CLASSES = (";", "|")
MISSING = ("NA", "NaN")  # as R and pandas write it


@dataclass(frozen=True)
class Listed:
    """The pictures of a manifest. parts: of each picture, or none where the manifest says no split; groups likewise."""

    items: list[Datum]
    parts: list[str]
    groups: list[str]


def read_manifest(path: str | os.PathLike) -> Listed:
    """Classes are numbered in alphabetical order. Raises ValueError, in one line, for what is no such list, for a picture
    that stands twice or has several classes, and for a group in several parts; FileNotFoundError for missing pictures."""
    path = Path(path)
    rows = list(_rows(path))
    if not rows:
        raise ValueError(f"{path} lists no picture")
    columns = _columns(path, rows)
    seen: dict[str, int] = {}
    found: list[tuple[str, str, str, str]] = []
    for number, row in enumerate(rows, 1):
        where = f"{path}, picture {number}"
        cells = {kind: row.get(column) if column else None for kind, column in columns.items()}
        picture, part, group = (_text(where, cells[kind]) for kind in ("path", "split", "group"))
        name = _class(where, picture, cells["class"])
        if not picture or not name:
            raise ValueError(f"{where} has no {'class' if picture else 'path'}")
        if name in MISSING:
            raise ValueError(
                f'{where} has the class "{name}", as R writes what is missing: give it one, or leave it out'
            )
        group = "" if group in MISSING else group
        full = os.path.normpath(os.path.join(path.parent.resolve(), os.path.expanduser(picture)))
        if "\\" in picture and not os.path.isfile(full):  # as Windows writes paths
            full = os.path.normpath(os.path.join(path.parent.resolve(), picture.replace("\\", "/")))
        if full in seen:
            other = found[seen[full]][1]
            more = "" if other == name else f', as "{other}" and as "{name}": each picture needs one class'
            raise ValueError(f"{path}: {picture} stands twice{more}")
        if part and part.lower() not in PARTS:
            raise ValueError(f'{where}: the split, column "{columns["split"]}", is "{part}": use train, val or test')
        seen[full] = len(found)
        found.append((full, name, PARTS.get(part.lower(), ""), group))
    missing = [full for full, *_ in found if not os.path.isfile(full)]
    strange = [full for full, *_ in found if not is_picture(full)]
    if missing:
        raise FileNotFoundError(f"{path} lists {len(missing):,} pictures that are not there, the first is {missing[0]}")
    if strange:
        raise ValueError(
            f"{path} lists {len(strange):,} files that are no pictures of a kind that is read: {strange[0]}"
        )
    return _listed(path, found)


def _listed(path: Path, found: list[tuple[str, str, str, str]]) -> Listed:
    names, parts, groups = (list(column) for column in list(zip(*found, strict=True))[1:])
    without = next((full for full, _, part, _ in found if not part), "")
    if any(parts) and without:
        raise ValueError(f"{path} names a split for some pictures and none for {without}: give it for all, or for none")
    if any(parts) and not {"train", "test"} <= {*parts}:
        raise ValueError(
            f"{path} has no pictures for {'test' if 'train' in parts else 'train'}: give both, or no split"
        )
    if any(groups):
        # a picture without a group is one of its own
        groups = [group or f"\0{number}" for number, group in enumerate(groups)]
        homes: dict[str, str] = {}
        for part, group in zip(parts, groups, strict=True):
            if homes.setdefault(group, part) != part:
                raise ValueError(
                    f'{path}: the group "{group}" is in {homes[group]} and in {part}: what belongs together would be on '
                    "both sides of the test; put it into one, or leave the split out"
                )
    classes = sorted({*names})
    if len(classes) < 2:
        raise ValueError(f'{path} has one class alone, "{classes[0]}": there is nothing to tell apart')
    label = {name: number for number, name in enumerate(classes)}
    items = [Datum(impath=full, label=label[name], classname=name) for full, name, *_ in found]
    return Listed(items, parts if any(parts) else [], groups if any(groups) else [])


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Lines, each by column; empty ones are passed over. Raises ValueError, naming the line."""
    text, between = read_text(path), MANIFESTS[path.suffix.lower()]
    if between:
        if told := re.match(r"sep=(.)\s*\n", text):  # a spreadsheet's own line
            between, text = told[1], "\n" + text[told.end() :]
        first = next((line for line in text.split("\n") if line.strip()), "")
        others = (";", "\t")  # as spreadsheets write it in many countries, or by another name
        between = next((sign for sign in others if between == "," and sign in first and "," not in first), between)
        header: list[str] = []
        try:
            reader = csv.reader(io.StringIO(text), delimiter=between, strict=True)
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if not header:
                    header = [cell.strip().lower() for cell in cells]
                    double = next((name for name in header if name and header.count(name) > 1), None)
                    if double is not None:
                        raise ValueError(f'{path} has two columns "{double}": keep one')
                    continue
                if len(cells) != len(header):
                    raise ValueError(f"{path}, line {reader.line_num} has more or fewer cells than the first line")
                yield dict(zip(header, cells, strict=True))
        except csv.Error as error:
            raise ValueError(f"{path} is no table ({error}): expected a first line path,class") from None
        return
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number} is no JSON: {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f'{path}, line {number} is no object: expected {{"path": ..., "class": ...}}')
        yield {name.strip().lower(): value for name, value in row.items()}


def _columns(path: Path, rows: list[dict[str, Any]]) -> dict[str, str]:
    """Kind of column -> what it is called here."""
    there = list(dict.fromkeys(name for row in rows for name in row))
    found = {}
    for kind, words in COLUMNS.items():
        own = [name for name in there if name in words]
        if len(own) > 1:
            raise ValueError(f'{path} has two columns for the {kind}, "{own[0]}" and "{own[1]}": keep one')
        if not own and kind in ("path", "class"):
            hint = next((hint for name in there if (hint := did_you_mean(name, words))), "; it has")
            raise ValueError(f'{path} has no column "{kind}"{hint} {", ".join(map(str, there[:8]))}')
        found[kind] = own[0] if own else ""
    return found


def _class(where: str, picture: str, value: Any) -> str:
    """A class name. Raises ValueError for several."""
    if isinstance(value, list):
        names = [_text(where, one) for one in value]
    else:
        text = _text(where, value)
        sign = next((sign for sign in BETWEEN_CLASSES if sign in text), None)
        names = [name.strip() for name in text.split(sign)] if sign else [text]
    names = [name for name in names if name]
    if len(names) > 1:
        raise ValueError(
            f"{where} ({picture}) has several classes: each picture needs one, since the classes exclude each other"
        )
    return names[0] if names else ""


def _text(where: str, value: Any) -> str:
    """A cell; whole numbers are text, and nothing is empty text. Raises ValueError for anything else."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{where} has {str(value)[:40]} where text belongs")
    text = str(value).strip()
    if not text.isprintable():
        raise ValueError(f"{where} has a line break or the like in {text[:40]!r}: take it out")
    return text
