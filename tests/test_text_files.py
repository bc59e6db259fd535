"""Text that people bring: BOM, UTF-16, Latin-1, keys that stand twice."""

import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT, patience

from trainers.core.settings.configure import configure
from trainers.core.settings.text_files import read_pairs, read_text, read_yaml

TEXT = "n00 café\nn01 crème brûlée\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le with mark", "utf-16-be with mark"])
def test_what_says_its_encoding_is_read(encoding, tmp_path):
    name, _, marked = encoding.partition(" with ")
    (tmp_path / "names.txt").write_bytes((("\ufeff" if marked else "") + TEXT).encode(name))
    assert read_text(tmp_path / "names.txt") == TEXT
    assert read_pairs(tmp_path / "names.txt") == {"n00": "café", "n01": "crème brûlée"}


@pytest.mark.parametrize(("content", "said"), [
    (TEXT.encode("latin-1"), r"is no text in UTF-8 \(line 1\): save it as UTF-8"),
    (TEXT.encode("utf-16-le"), "is no text"),
    (b"\x89PNG\r\n\x1a\n\0\0", "is no text"),
])  # fmt: skip
def test_what_does_not_is_refused_by_name(content, said, tmp_path):
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"names\.txt {said}"):
        read_text(tmp_path / "names.txt")


def test_lines_of_windows_tabs_and_doubles(tmp_path):
    (tmp_path / "names.txt").write_bytes(b"n00\tcat\r\nn01   red panda \r\n\r\n")
    assert read_pairs(tmp_path / "names.txt") == {"n00": "cat", "n01": "red panda"}
    (tmp_path / "names.txt").write_text("# folder and name\nred cat\tkitty cat\nn01\tpanda\n")
    assert read_pairs(tmp_path / "names.txt") == {"red cat": "kitty cat", "n01": "panda"}
    (tmp_path / "names.txt").write_text("a apple\na avocado\n")
    with pytest.raises(ValueError, match='two lines for the folder "a"'):
        read_pairs(tmp_path / "names.txt")


@pytest.mark.parametrize("text", ["OPTIM: {LR: 0.5}\nOPTIM: {NAME: adam}\n", "OPTIM:\n  LR: 0.5\n  LR: 0.1\n"])
def test_a_key_that_stands_twice_is_refused(text, tmp_path):
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"own\.yaml: (OPTIM|LR) stands twice, again in line \d"):
        read_yaml(tmp_path / "own.yaml")
    with pytest.raises(ValueError, match="stands twice"):
        configure([str(tmp_path / "own.yaml")], [])


def test_yaml_that_merges_and_yaml_that_is_none(tmp_path):
    (tmp_path / "own.YAML").write_text("OPTIM: &a {LR: 0.5}\nTEST:\n  <<: *a\n")
    assert read_yaml(tmp_path / "own.YAML") == {"OPTIM": {"LR": 0.5}, "TEST": {"LR": 0.5}}
    (tmp_path / "own.YAML").write_text("OPTIM:\n\tLR: 0.5\n")
    with pytest.raises(ValueError, match=r"own\.YAML is no yaml: .* \(line 2: found character '\\t'"):
        read_yaml(tmp_path / "own.YAML")
    (tmp_path / "own.YAML").write_text("? [a]\n: 1\n")
    with pytest.raises(ValueError, match=r"own\.YAML"):
        read_yaml(tmp_path / "own.YAML")


def test_what_is_no_text_is_shown_all_the_same():
    program = "from trainers.core.settings.errors import program; program(lambda: print('caf\\udce9.png') or 0)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "caf\\udce9.png\n"), done.stderr


SAVES = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: (time.sleep(1), print("saved"), sys.exit(75)))
print("ready", flush=True)
time.sleep(60)
"""
WAITS = """
import sys
from trainers.core.settings.errors import waited_for
sys.exit(waited_for([sys.executable, "-c", sys.argv[1]]))
"""


def test_ctrl_c_waits_for_what_it_has_reached():
    """The whole process group gets it."""
    command = [sys.executable, "-c", WAITS, SAVES]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=patience(30))
    assert (process.returncode, said) == (75, "saved\n")
