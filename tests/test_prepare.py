"""prepare_data.py against a server on 127.0.0.1 that behaves badly in all the ways that servers do."""

import hashlib
import http.server
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import CLASSES, ROOT, write_pictures

from harness.data import fetch as fetching
from harness.data.fetch import FetchError, fetch, fetch_drive
from harness.data.prepare import Options, PrepareError, _link, prepare, read_sources
from harness.data.unpack import UnpackError, find, unpack
from harness.data.verify import verify

COUNTS = {"train": 3, "val": 1, "test": 2}
PICTURES = [n * len(CLASSES) for n in COUNTS.values()]


class Server:
    """Serves `files`; `answers` are what the next requests get instead: a status, or a way of failing."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.answers: list[Any] = []
        self.requests: list[tuple[str, str | None]] = []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests.append((self.path, self.headers.get("Range")))
                server.answer(self, server.answers.pop(0) if server.answers else None)

            def log_message(self, *args: Any) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def answer(self, to: http.server.BaseHTTPRequestHandler, how: Any) -> None:
        name = to.path.lstrip("/").split("?")[0]
        if isinstance(how, int):
            to.send_response(how)
            if how == 302:
                to.send_header("Location", f"{self.url}/{name}?moved")
            to.send_header("Content-Length", "0")
            to.end_headers()
            return
        body = self.files.get(name)
        if body is None:
            return self.answer(to, 404)
        start = int(r.split("=")[1].rstrip("-")) if (r := to.headers.get("Range")) and how != "no ranges" else 0
        if start and start >= len(body):
            to.send_response(416)
            to.send_header("Content-Range", f"bytes */{len(body)}")
            to.end_headers()
            return
        to.send_response(206 if start else 200)
        kind = "text/html" if how == "html" else "application/octet-stream"
        to.send_header("Content-Type", kind)
        rest = body[start:]
        if how == "too long":
            to.send_header("Content-Length", str(len(rest) + 100))
        elif how != "no length":
            to.send_header("Content-Length", str(len(rest)))
        to.end_headers()
        if how == "cut":
            to.wfile.write(rest[: len(rest) // 2])
        elif how == "slow":
            for i in range(0, len(rest), 4096):
                to.wfile.write(rest[i : i + 4096])
                to.wfile.flush()
                time.sleep(0.1)
        else:
            to.wfile.write(rest)


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


def tar_of(folder: Path, name: str, mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        archive.add(folder, name)
    return buffer.getvalue()


def caltech(folder: Path) -> dict[str, list]:
    """A miniature of Caltech101's pictures in `folder`/101_ObjectCategories; its split."""
    split = {
        part: [[f"{c}/{part}_{i}.jpg", y, c] for y, c in enumerate(CLASSES) for i in range(n)]
        for part, n in COUNTS.items()
    }
    write_pictures(folder / "101_ObjectCategories", split, 16)
    return split


@pytest.fixture
def source(server: Server, tmp_path: Path) -> Any:
    """Caltech101 in miniature: a zip that holds a tar.gz, as the real one, and a split file from "Google Drive"."""
    made = tmp_path / "made"
    split = caltech(made)
    inner = tar_of(made / "101_ObjectCategories", "101_ObjectCategories")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("caltech-101/101_ObjectCategories.tar.gz", inner)
    server.files = {"caltech-101.zip": buffer.getvalue(), "split": json.dumps(split).encode()}
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for path in sorted((made / "101_ObjectCategories").rglob("*.jpg")):
            archive.write(path, f"caltech-101/{path.relative_to(made)}")
        archive.writestr("caltech-101/split_zhou_Caltech101.json", json.dumps(split))
    server.files["mirror/caltech-101.zip"] = whole.getvalue()
    text = yaml.safe_load((ROOT / "harness" / "data" / "sources.yaml").read_text())
    entry = text["datasets"]["caltech101"]
    entry |= {"pictures": PICTURES, "classes": len(CLASSES)}
    md5 = hashlib.md5(server.files["caltech-101.zip"]).hexdigest()
    entry["parts"][0]["from"] = [{"url": f"{server.url}/caltech-101.zip", "md5": md5}]
    entry["parts"][1]["from"] = [{"drive": "split"}]
    text |= {
        "drive": server.url + "/{}",
        "mirror": server.url + "/mirror/{}",
        "datasets": {"caltech101": entry, "imagenet": text["datasets"]["imagenet"]},
    }
    file = tmp_path / "sources.yaml"
    file.write_text(yaml.safe_dump(text))
    return file


def options(tmp_path: Path, **more: Any) -> Options:
    return Options(tmp_path / "data", pause=0.01, **more)


def test_a_dataset_from_its_sources(source, server, tmp_path):
    folder = prepare(read_sources(source)["caltech101"], options(tmp_path))
    assert sorted(p.name for p in folder.iterdir()) == [
        "101_ObjectCategories", "manifest.json", "split_zhou_Caltech101.json",
    ]  # fmt: skip
    record = json.loads((folder / "manifest.json").read_text())
    assert record[0]["sha256"] == hashlib.sha256(server.files["caltech-101.zip"]).hexdigest()
    assert record[0]["from"].endswith("/caltech-101.zip")
    assert not (tmp_path / "data" / ".prepare").exists()
    found = verify("caltech101", tmp_path / "data", PICTURES, len(CLASSES))
    assert found.complete
    assert found.extra == 0


@pytest.mark.parametrize(
    "answers", [[500, 503, None], [429, None], ["cut", None], ["cut", "cut", None], [302], ["no length"], ["slow"]]
)
def test_a_bad_day_of_the_server(source, server, tmp_path, answers):
    server.answers = answers
    folder = prepare(read_sources(source)["caltech101"], options(tmp_path))
    assert (folder / "split_zhou_Caltech101.json").is_file()


def test_a_download_continues_where_it_was_cut(server, tmp_path):
    server.files["x.bin"] = os.urandom(4_000_000)
    server.answers = ["cut", None]
    fetch(f"{server.url}/x.bin", tmp_path / "x.bin", pause=0.01)
    assert (tmp_path / "x.bin").read_bytes() == server.files["x.bin"]
    assert server.requests[0] == ("/x.bin", None)
    assert 1_500_000 < int(server.requests[1][1].removeprefix("bytes=").rstrip("-")) <= 2_000_000
    (tmp_path / "y.part").write_bytes(server.files["x.bin"])  # complete, but the process was killed before renaming
    fetch(f"{server.url}/x.bin", tmp_path / "y", pause=0.01)
    assert (tmp_path / "y").read_bytes() == server.files["x.bin"]


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.files["x.bin"] = os.urandom(50_000)
    server.answers = ["cut", "no ranges"]
    fetch(f"{server.url}/x.bin", tmp_path / "x.bin", pause=0.01)
    assert (tmp_path / "x.bin").read_bytes() == server.files["x.bin"]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([404], "answered 404"),
        ([403], "answered 403"),
        (["html"], "a web page instead of the file"),
        ([500] * 6, "answered 500, 6 times without progress"),
    ],
)
def test_what_cannot_be_had(server, tmp_path, answers, message):
    server.files["x.bin"] = b"x" * 1000
    server.answers = answers
    with pytest.raises(FetchError, match=message):
        fetch(f"{server.url}/x.bin", tmp_path / "x.bin", pause=0.001)
    assert not (tmp_path / "x.bin").exists()


def test_a_wrong_length_is_settled_by_asking_again(server, tmp_path):
    server.files["x.bin"] = b"x" * 1000
    server.answers = ["too long"]
    assert fetch(f"{server.url}/x.bin", tmp_path / "x.bin", pause=0.001).stat().st_size == 1000
    assert server.requests[-1][1] == "bytes=1000-"


def test_nobody_listens(tmp_path):
    with pytest.raises(FetchError, match="ConnectionError, 6 times without progress"):
        fetch("http://127.0.0.1:9/x", tmp_path / "x", pause=0.001)


def test_a_wrong_checksum(server, tmp_path):
    server.files["x.bin"] = b"x" * 1000
    with pytest.raises(FetchError, match=r"its md5 is \w+, but should be 00; removed"):
        fetch(f"{server.url}/x.bin", tmp_path / "x.bin", md5="00", pause=0.01)
    assert list(tmp_path.iterdir()) == []


def test_google_drives_quota_page(server, tmp_path):
    server.files["id"] = b"<!DOCTYPE html><html>Quota exceeded</html>"
    with pytest.raises(FetchError, match="a web page instead of the file"):
        fetch_drive(f"{server.url}/id", tmp_path / "split.json")
    with pytest.raises(FetchError):
        fetch_drive(f"{server.url}/nothing", tmp_path / "split.json")
    assert list(tmp_path.iterdir()) == []


def test_no_room(server, tmp_path, monkeypatch):
    server.files["x.bin"] = b"x" * 1000
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(FetchError, match="GiB free: make room, or use --root"):
        fetch(f"{server.url}/x.bin", tmp_path / "x.bin")


@pytest.mark.parametrize("fault", [404, "html", "damaged"])
def test_the_mirror_serves_when_the_source_does_not(source, server, tmp_path, fault):
    if fault == "damaged":
        server.files["caltech-101.zip"] = server.files["caltech-101.zip"][:-2000] + b"x" * 2000
    server.answers = [fault]
    folder = prepare(read_sources(source)["caltech101"], options(tmp_path))
    assert "mirror" in (folder / "manifest.json").read_text()


def test_by_hand_when_nothing_answers(source, server, tmp_path):
    archive = server.files.pop("caltech-101.zip")
    del server.files["mirror/caltech-101.zip"]
    caltech101 = read_sources(source)["caltech101"]
    with pytest.raises(PrepareError, match=r"answered 404.*put caltech-101.zip into .* and start again"):
        prepare(caltech101, options(tmp_path))
    assert not (tmp_path / "data" / "caltech-101").exists()
    (tmp_path / "data" / ".prepare" / "caltech101" / "caltech-101.zip").write_bytes(archive)
    assert prepare(caltech101, options(tmp_path)).is_dir()


def test_a_gated_source_says_what_to_do(source, tmp_path):
    command = [sys.executable, "scripts/prepare_data.py", "imagenet", "--root", str(tmp_path), "--sources", str(source)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 1
    (line,) = process.stderr.splitlines()
    assert "account of your own at https://image-net.org" in line
    assert "put ILSVRC2012_img_train.tar into" in line


def test_a_missing_split_file_is_all_that_is_fetched(source, server, tmp_path):
    caltech(tmp_path / "data" / "caltech-101")
    prepare(read_sources(source)["caltech101"], options(tmp_path))
    assert [path for path, _ in server.requests] == ["/split"]


def test_a_copy_elsewhere_is_linked(source, server, tmp_path):
    caltech(tmp_path / "copy")
    folder = prepare(read_sources(source)["caltech101"], options(tmp_path, link=tmp_path / "copy"))
    assert (folder / "101_ObjectCategories").is_symlink()
    assert not (folder / "split_zhou_Caltech101.json").is_symlink()
    assert [path for path, _ in server.requests] == ["/split"]
    with pytest.raises(PrepareError, match="there is no folder"):
        prepare(read_sources(source)["imagenet"], options(tmp_path, link=tmp_path / "nowhere"))


def test_what_is_fetched_beside_a_linked_copy_is_not_written_into_it(source, tmp_path):
    """A copy of ImageNet's training pictures alone: its validation pictures come to lie beside the link."""
    copy, folder = tmp_path / "copy", tmp_path / "folder"
    (copy / "images" / "train").mkdir(parents=True)
    folder.mkdir()
    _link(copy, folder, ["images/train", "images/val"])
    (folder / "images" / "val").mkdir()
    assert (folder / "images" / "train").is_symlink()
    assert [path.name for path in (copy / "images").iterdir()] == ["train"]


def test_a_linked_copy_of_a_package_needs_no_manifest_of_ours(tmp_path):
    copy = tmp_path / "copy"
    (copy / "images").mkdir(parents=True)
    source = read_sources()["cifar10"]
    (copy / "split_cifar10.json").write_text(json.dumps({"train": [], "val": [], "test": []}))
    with pytest.raises(PrepareError, match="is not what it should be"):  # it looks at the copy, and fetches nothing
        prepare(source, options(tmp_path, link=copy))
    assert (tmp_path / "data" / ".prepare" / "cifar10" / "whole" / source.folder / "images").is_symlink()


def test_another_archive_in_the_place_of_a_wrong_one(source, server, tmp_path):
    """What a wrong archive was unpacked to is not believed of the right one."""
    right, caltech101 = server.files.pop("caltech-101.zip"), read_sources(source)["caltech101"]
    del server.files["mirror/caltech-101.zip"]
    work = tmp_path / "data" / ".prepare" / "caltech101"
    work.mkdir(parents=True)
    with zipfile.ZipFile(work / "caltech-101.zip", "w") as archive:
        archive.writestr("caltech-101/another.txt", "x")
    with pytest.raises(PrepareError, match='has no "101_ObjectCategories" in it'):
        prepare(caltech101, options(tmp_path))
    (work / "caltech-101.zip").write_bytes(right)
    assert prepare(caltech101, options(tmp_path)).is_dir()


def test_a_kept_archive_serves_again(source, server, tmp_path):
    caltech101 = read_sources(source)["caltech101"]
    shutil.rmtree(prepare(caltech101, options(tmp_path, keep=True)))
    server.requests.clear()
    assert prepare(caltech101, options(tmp_path, keep=True)).is_dir()
    assert [path for path, _ in server.requests] == ["/split"]  # which is no archive


def test_an_incomplete_archive_is_not_taken(source, server, tmp_path):
    split = json.loads(server.files["split"])
    split["test"].append(["ant/another.jpg", 3, "ant"])
    server.files["split"] = json.dumps(split).encode()
    with pytest.raises(PrepareError, match=r"not what it should be: it has .* test pictures"):
        prepare(read_sources(source)["caltech101"], options(tmp_path))
    assert not (tmp_path / "data" / "caltech-101").exists()


def tar_with(member: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(member, io.BytesIO(b"x" * member.size))
    return buffer.getvalue()


def hostile_members() -> Iterator[tarfile.TarInfo]:
    for name in ("/etc/passwd", "../outside", "a/../../outside"):
        yield tarfile.TarInfo(name)
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        member = tarfile.TarInfo("inside")
        member.type, member.linkname = kind, "target"
        yield member


@pytest.mark.parametrize("member", hostile_members(), ids=lambda m: f"{m.name}-{m.type!r}")
def test_hostile_tar_archives(tmp_path, member):
    (tmp_path / "x.tar").write_bytes(tar_with(member))
    with pytest.raises(UnpackError, match="no business"):
        unpack(tmp_path / "x.tar", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["x.tar"]


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside", "link"])
def test_hostile_zip_archives(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        member = zipfile.ZipInfo(name)
        if name == "link":
            member.external_attr = 0o120777 << 16
        archive.writestr(member, "target")
    with pytest.raises(UnpackError, match="no business"):
        unpack(tmp_path / "x.zip", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["x.zip"]


@pytest.mark.parametrize("content", [b"", b"not an archive at all", "cut.tar.gz", "cut.zip"])
def test_damaged_archives(tmp_path, content):
    file = tmp_path / (content if isinstance(content, str) else "x.tar")
    if isinstance(content, str):
        caltech(tmp_path / "made")
        if content.endswith("zip"):
            with zipfile.ZipFile(file, "w") as archive:
                archive.write(next((tmp_path / "made").rglob("*.jpg")), "a.jpg")
            whole = bytearray(file.read_bytes())
            whole[60:80] = b"y" * 20
            file.write_bytes(whole)
        else:
            whole = tar_of(tmp_path / "made", "made")
            file.write_bytes(whole[: len(whole) // 2])
    else:
        file.write_bytes(content)
    with pytest.raises(UnpackError, match=r"is damaged|is no archive"):
        unpack(file, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_find_takes_the_least_deep(tmp_path):
    (tmp_path / "a" / "images").mkdir(parents=True)
    (tmp_path / "a" / "b" / "images").mkdir(parents=True)
    assert find(tmp_path, "images") == tmp_path / "a" / "images"
    assert find(tmp_path, "b/images") == tmp_path / "a" / "b" / "images"
    assert find(tmp_path, "pictures") is None


def command(source: Path, root: Path, *more: str) -> list[str]:
    where = ["--root", str(root), "--sources", str(source), "--pause", "0.01"]
    return [sys.executable, "scripts/prepare_data.py", "caltech101", *where, *more]


@pytest.mark.parametrize("moment", [0.0, *(pytest.param(later, marks=pytest.mark.slow) for later in (0.4, 1.5))])
def test_killed_it_continues(source, server, tmp_path, moment):
    """SIGKILL while it downloads (slowly), unpacks or checks; the same command ends it."""
    server.answers = ["slow"]
    process = subprocess.Popen(command(source, tmp_path / "data"), cwd=ROOT, stderr=subprocess.DEVNULL)
    while not server.requests and process.poll() is None:
        time.sleep(0.02)
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    process.wait()
    server.answers = []
    done = subprocess.run(command(source, tmp_path / "data"), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert verify("caltech101", tmp_path / "data", PICTURES, len(CLASSES)).complete
    assert not (tmp_path / "data" / ".prepare").exists()


def test_two_at_once_do_not_collide(source, server, tmp_path):
    server.answers = ["slow"]
    first = subprocess.Popen(command(source, tmp_path / "data"), cwd=ROOT, stderr=subprocess.DEVNULL)
    while not server.requests and first.poll() is None:
        time.sleep(0.02)
    second = subprocess.run(command(source, tmp_path / "data"), cwd=ROOT, capture_output=True, text=True)
    assert second.returncode == 1
    assert f"is in use by process {first.pid}" in second.stderr
    assert second.stderr.strip().endswith("wait for it")
    assert first.wait() == 0


def test_what_is_there_is_left_alone_and_verified(source, server, tmp_path):
    root = tmp_path / "data"
    prepare(read_sources(source)["caltech101"], options(tmp_path))
    server.requests.clear()
    again = subprocess.run(command(source, root), cwd=ROOT, capture_output=True, text=True)
    assert "is there already: left alone" in again.stdout
    assert server.requests == []
    pictures = sorted((root / "caltech-101" / "101_ObjectCategories").rglob("*.jpg"))
    pictures[0].unlink()
    pictures[1].write_bytes(b"no picture")
    (pictures[1].parent / "extra.jpg").write_bytes(b"")
    process = subprocess.run(command(source, root, "--verify"), cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 1
    row = process.stdout.splitlines()[-1].split()
    assert row[:7] == ["caltech101", *map(str, PICTURES), "1", "1", "1"]
    assert f"1 pictures are missing, for example {pictures[0]}" in process.stdout


def test_a_folder_that_lacks_what_its_package_brings_is_not_complete(tmp_path):
    """Nothing of somebody else's in it is removed."""
    folder = tmp_path / "data" / "cifar10"
    folder.mkdir(parents=True)
    (source,) = (own for own in read_sources().values() if own.name == "cifar10")
    assert not source.complete(tmp_path / "data")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(
        PrepareError, match=r"lacks images, split_cifar10.json, manifest.json, which come together: move"
    ):
        prepare(source, options(tmp_path))
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["caltech"], 'dataset "caltech" is unknown; did you mean "caltech101"?'),
        (["dtd", "eurosat", "--link", "x"], "--link takes one dataset"),
        (["dtd", "--sources", "nowhere.yaml"], "No such file or directory: 'nowhere.yaml'"),
    ],
)
def test_a_typo(words, message, tmp_path):
    whole = [sys.executable, "scripts/prepare_data.py", *words, "--root", str(tmp_path)]
    process = subprocess.run(whole, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 2
    assert message in process.stderr
    assert len(process.stderr.splitlines()) == 1


def test_list_and_dry_run_name_every_benchmark(tmp_path):
    configs = {p.stem for p in (ROOT / "configs" / "datasets").glob("*.yaml")}
    configs -= {"demo", "folder", *(c for c in configs if c.startswith("drawn"))}  # made here
    for option in ("--list", "--dry-run"):
        whole = [sys.executable, "scripts/prepare_data.py", option, "--root", str(tmp_path)]
        process = subprocess.run(whole, cwd=ROOT, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr
        assert {line.split()[0].rstrip(":") for line in process.stdout.splitlines()} >= configs
    assert list(tmp_path.iterdir()) == []


def test_imagenet_from_its_own_archives(tmp_path, monkeypatch, source):
    """Archives of archives, validation labels in the development kit; in miniature, so with other checksums."""
    import numpy as np
    import scipy.io
    from torchvision.datasets import imagenet

    work = tmp_path / "data" / ".prepare" / "imagenet"
    work.mkdir(parents=True)
    synsets = ["n01440764", "n01443537"]
    made = tmp_path / "made"
    for i, synset in enumerate(synsets):
        write_pictures(made / synset, {"x": [[f"{synset}_{k}.JPEG", i, ""] for k in range(3)]}, 8)
        (made / "train").mkdir(exist_ok=True)
        (made / "train" / f"{synset}.tar").write_bytes(tar_of(made / synset, ".", "w"))
    write_pictures(made / "val", {"x": [[f"ILSVRC2012_val_{i + 1:08d}.JPEG", i % 2, ""] for i in range(4)]}, 8)
    meta = np.array(
        [(i + 1, s, s, "", 0, np.array([], dtype=np.uint8), 0, 3) for i, s in enumerate(synsets)],
        dtype=[(n, object) for n in ("ID", "WNID", "words", "gloss", "num", "children", "height", "images")],
    )
    kit = made / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    scipy.io.savemat(kit / "meta.mat", {"synsets": meta})
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n2\n1\n2\n")
    archives = {
        "ILSVRC2012_img_train.tar": tar_of(made / "train", ".", "w"),
        "ILSVRC2012_img_val.tar": tar_of(made / "val", ".", "w"),
        "ILSVRC2012_devkit_t12.tar.gz": tar_of(made / "ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12"),
    }
    for name, content in archives.items():
        (work / name).write_bytes(content)
    (work / "classnames.txt").write_text("n01440764 tench\nn01443537 goldfish\n")
    imagenet_source = read_sources(source)["imagenet"]
    imagenet_source.pictures, imagenet_source.classes = [6, 0, 4], 2
    with pytest.raises(PrepareError, match=r"corrupted.*put ILSVRC2012_img_train.tar into"):
        prepare(imagenet_source, options(tmp_path))
    names = {
        "train": "ILSVRC2012_img_train.tar",
        "val": "ILSVRC2012_img_val.tar",
        "devkit": "ILSVRC2012_devkit_t12.tar.gz",
    }
    for key, name in names.items():
        monkeypatch.setitem(imagenet.ARCHIVE_META, key, (name, hashlib.md5(archives[name]).hexdigest()))
    folder = prepare(imagenet_source, options(tmp_path))
    assert sorted(p.name for p in (folder / "images" / "val" / "n01443537").iterdir()) == [
        "ILSVRC2012_val_00000002.JPEG", "ILSVRC2012_val_00000004.JPEG",
    ]  # fmt: skip
