"""Text that people bring: read as what it is, or refused in a line that names the file."""

import codecs
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}

MANIFESTS = {
    ".csv": ",",
    ".tsv": "\t",
    ".jsonl": "",
    ".ndjson": "",
}  # lists of pictures, and what stands between columns


def is_manifest(path: str | Path) -> bool:
    """Whether a file is, by its name, a list of pictures (datasets/manifest.py)."""
    return Path(path).suffix.lower() in MANIFESTS


def read_text(path: str | Path) -> str:
    """A file in UTF-8, or in what the mark at its beginning says. Raises ValueError for any other, OSError for none."""
    content = Path(path).read_bytes()
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        where = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path} is no text in {encoding.upper()} (line {where}): save it as UTF-8") from None
    if "\0" in text:
        raise ValueError(f"{path} is no text: it holds zero bytes; save it as UTF-8")
    return text.replace("\r\n", "\n")


def read_pairs(path: str | Path) -> dict[str, str]:
    """A file with a line of folder and class name each, a tab between them where a folder's name has a space.

    Lines that begin with # are comments. Raises ValueError for anything else, and for a folder on two lines.
    """
    lines = [line for line in read_text(path).splitlines() if line.strip() and not line.startswith("#")]
    pairs = [line.split("\t" if "\t" in line else None, 1) for line in lines]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(f'{path} is no list of class names: expected lines like "n01440764 tench"')
    names = {folder: name.strip() for folder, name in pairs}
    if len(names) < len(pairs):
        folders = [folder for folder, _ in pairs]
        double = next(folder for folder in folders if folders.count(folder) > 1)
        raise ValueError(f'{path} has two lines for the folder "{double}": keep one')
    return names


class _Once(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error: the first would be dropped without a word."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise ValueError(f"{key} stands twice, again in line {key_node.start_mark.line + 1}: put both into one")
            seen.add(key)
        return super().construct_mapping(node, deep)


def of_dataset(path: str | Path, dataset: str) -> dict[str, Any]:
    """What a method's file by_dataset.yaml says of a data set; of one that it does not have, what it says of "other"."""
    known = read_yaml(path)
    return known.get(dataset, known["other"])


def read_yaml(path: str | Path) -> Any:
    """What a yaml file holds. Raises ValueError, in one line, for one that is no yaml or says something twice."""
    try:
        return yaml.load(read_text(path), Loader=_Once)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}: {getattr(error, 'problem', '')})" if mark else ""
        raise ValueError(f"{path} is no yaml: {str(error).splitlines()[0]}{where}") from None
    except (TypeError, ValueError) as error:
        raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
