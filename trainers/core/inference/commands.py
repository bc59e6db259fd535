"""`mocoop predict | export | explore | mistakes`, where the package is installed without this checkout."""

import importlib
import sys

from ..settings.errors import program

COMMANDS = {
    "predict": "predict",
    "export": "export_command",
    "explore": "explore",
    "mistakes": "mistakes_page",
}  # word -> module beside this one


def main() -> int:
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    if word not in COMMANDS:
        print(f"usage: mocoop {' | '.join(COMMANDS)} ... (each has --help)", file=sys.stderr)
        return 0 if word in ("-h", "--help") else 2
    sys.argv = [f"mocoop {word}", *sys.argv[2:]]
    return program(importlib.import_module(f".{COMMANDS[word]}", __package__).main)
