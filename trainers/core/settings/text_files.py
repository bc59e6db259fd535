"""Text that people bring: read as what it is, or refused in a line that names the file."""

import codecs
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


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
