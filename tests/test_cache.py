"""What runs keep for each other: proved when it is read, whatever was done to the files in between."""

import hashlib
import json
import os
import pickle
import random
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, patience, write_pictures
from PIL import Image
from test_faults import in_small_disk, own_disks  # noqa: F401
from torch.utils.data import DataLoader
from torchvision import transforms as T

from harness import caches
from trainers.core.clip.backbones.protocol import Preprocessing
from trainers.core.loading.array_cache import INDEX, MB, ArrayCache, key_of
from trainers.core.loading.contents import Contents
from trainers.core.loading.feature_cache import FrozenFeatures, as_array, from_array, is_fixed, remembering
from trainers.core.loading.loaders import Pictures
from trainers.core.loading.picture_cache import Photographs, ResizedPictures
from trainers.core.loading.read import read_picture
from trainers.core.settings.configure import configure

ABOUT = {"holds": "features", "dataset": "Caltech101", "place": "/data"}


def opened(root, about=ABOUT, limit=64 * MB):
    return ArrayCache(root, about, limit)


def arrays_of(count, seed=0):
    rng = np.random.default_rng(seed)
    return [(key_of(i), rng.normal(size=(3, 5)).astype(np.float32)) for i in range(count)]


@pytest.fixture
def filled(tmp_path):
    """A folder of caches with twenty arrays in it, and these."""
    arrays = arrays_of(20)
    assert opened(tmp_path).put(arrays) == 20
    return tmp_path, arrays


def all_there(root, arrays):
    cache = opened(root)
    return len(cache) == len(arrays) and all(np.array_equal(cache.get(key), array) for key, array in arrays)


@pytest.mark.parametrize("kind", ["u1", "i2", "f2", "f4", "f8", "i8"])
@pytest.mark.parametrize("shape", [(), (0, 4), (7,), (2, 3, 4, 5)])
def test_what_is_put_in_comes_out(tmp_path, kind, shape):
    array = np.random.default_rng(0).normal(size=shape).astype(kind)
    cache = opened(tmp_path)
    assert cache.put([(key_of("a"), array)]) == 1
    for reader in (cache, opened(tmp_path)):
        found = reader.get(key_of("a"))
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert np.array_equal(found, array)
        assert reader.get(key_of("b")) is None
    assert cache.put([(key_of("a"), array)]) == 0


def test_another_version_is_another_cache(filled):
    root, _ = filled
    assert len(opened(root, ABOUT | {"torch": "9"})) == 0


def test_arrays_moved_to_another_cache_prove_nothing(filled):
    root, arrays = filled
    other = opened(root, ABOUT | {"backbone": "another"})
    for name in ("index", "arrays"):
        shutil.copy(opened(root).folder / name, other.folder / name)
    other = opened(root, ABOUT | {"backbone": "another"})
    assert len(other) == len(arrays)
    assert all(other.get(key) is None for key, _ in arrays)
    assert other.damaged == len(arrays)


@pytest.mark.parametrize("name", ["arrays", "index", "about.json"])
@pytest.mark.parametrize("share", [0, 0.37, 0.99])
def test_cut_files(filled, name, share):
    """What is left is right, the rest can be put in again, and then all is there."""
    root, arrays = filled
    file = opened(root).folder / name
    os.truncate(file, int(file.stat().st_size * share))
    cache = opened(root)
    for key, array in arrays:
        found = cache.get(key)
        assert found is None or np.array_equal(found, array)
    cache.put(arrays)
    assert all_there(root, arrays)


def test_a_file_cut_while_it_is_open(filled):
    root, arrays = filled
    cache = opened(root)
    os.truncate(cache.folder / "index", 3 * INDEX.itemsize + 5)
    os.truncate(cache.folder / "arrays", 100)
    found = [cache.get(key) for key, _ in arrays]
    assert all(f is None or np.array_equal(f, a) for f, (_, a) in zip(found, arrays, strict=True))
    cache.put(arrays)
    later = opened(root)  # the next process finds out what the records that were left no longer stand for
    later.put([(key, array) for key, array in arrays if later.get(key) is None])
    assert all_there(root, arrays)


def test_bytes_changed_anywhere(tmp_path):
    """500 times a random byte of a random file: never another array than the one that was put in."""
    rng = random.Random(0)
    arrays = arrays_of(5)
    opened(tmp_path).put(arrays)
    folder = opened(tmp_path).folder
    whole = {name: (folder / name).read_bytes() for name in ("index", "arrays")}
    lost = 0
    for _ in range(500):
        name = rng.choice(list(whole))
        changed = bytearray(whole[name])
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        (folder / name).write_bytes(changed)
        cache = opened(tmp_path)
        found = [cache.get(key) for key, _ in arrays]
        assert all(f is None or np.array_equal(f, a) for f, (_, a) in zip(found, arrays, strict=True))
        lost += any(f is None for f in found)
        (folder / name).write_bytes(whole[name])
    assert lost > 400  # padding of shapes and kinds bears on nothing


def test_the_limit(tmp_path):
    cache = opened(tmp_path, limit=2000)
    arrays = arrays_of(100)
    kept = cache.put(arrays)
    assert 0 < kept < 33
    assert "the limit is reached" in cache.told()
    assert cache.told() == ""  # once
    assert np.array_equal(cache.get(arrays[0][0]), arrays[0][1])
    assert sum(file.stat().st_size for file in cache.folder.iterdir()) < 2000 + 33 * INDEX.itemsize + 500
    assert opened(tmp_path, limit=2000).put(arrays) == 0


def test_the_limit_is_one_for_all(tmp_path):
    """Each cache sees what the others have added since it was opened."""
    some = [opened(tmp_path, ABOUT | {"n": i}, limit=100_000) for i in range(4)]
    arrays = [(key_of(i), np.zeros(10_000, np.uint8)) for i in range(20)]
    for cache in some:
        cache._largest = 0  # as after STEP bytes
        cache.put(arrays)
    assert sum(cache.added for cache in some) <= 100_000


def test_in_a_process_that_is_not_forked(filled):
    """A pickled cache opens its files anew, for reading."""
    root, arrays = filled
    cache = pickle.loads(pickle.dumps(opened(root)))
    assert all(np.array_equal(cache.get(key), array) for key, array in arrays)
    assert cache.put(arrays_of(30)) == 0


def test_switched_off(tmp_path):
    cache = opened(tmp_path / "none", limit=0)
    assert (cache.put(arrays_of(2)), cache.told(), cache.is_of_use) == (0, "", False)
    assert not (tmp_path / "none").exists()


def process(tmp_path, body, *arguments):
    script = tmp_path / "process.py"
    script.write_text(
        f"import sys, time, resource\nsys.path.insert(0, {str(ROOT)!r})\nimport numpy as np\nfrom pathlib import Path\n"
        "from trainers.core.loading.array_cache import ArrayCache, MB, key_of\n"
        f"ABOUT = {ABOUT!r}\n"
        "def arrays_of(count, seed=0):\n"
        "    rng = np.random.default_rng(seed)\n"
        "    return [(key_of(i), rng.normal(size=(3, 5)).astype(np.float32)) for i in range(count)]\n"
        f"{body}\n"
    )
    return [sys.executable, str(script), *map(str, arguments)]


def test_several_processes_at_once(tmp_path):
    body = ("cache = ArrayCache(Path(sys.argv[1]), ABOUT, 64 * MB)\n"
            "for array in arrays_of(200): cache.put([array])\n"
            "print(cache.added)")  # fmt: skip
    command = process(tmp_path, body, tmp_path / "c")
    started = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(4)]
    added = [int(p.communicate(timeout=patience(120))[0]) for p in started]
    assert all_there(tmp_path / "c", arrays_of(200))
    assert sum(added) == 200 * 60  # each array once


def test_killed_while_writing(tmp_path):
    body = ("cache = ArrayCache(Path(sys.argv[1]), ABOUT, 64 * MB)\narrays = arrays_of(100000)\n"
            "print('begun', flush=True)\nfor array in arrays: cache.put([array])")  # fmt: skip
    command = process(tmp_path, body, tmp_path / "c")
    for delay in (0.0, 0.01, 0.03, 0.1):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(delay)
            writer.send_signal(signal.SIGKILL)
        cache = opened(tmp_path / "c")
        known = arrays_of(len(cache) + 1)
        assert all(np.array_equal(cache.get(key), array) for key, array in known[:-1])
    assert len(cache)  # something had been written
    assert opened(tmp_path / "c").put(arrays_of(len(cache) + 3)) == 3  # and nobody holds the lock


def test_a_disk_that_takes_no_more(tmp_path):
    """The half-written array goes, those before it stay, and the run is told why."""
    body = ("resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))\n"
            "cache = ArrayCache(Path(sys.argv[1]), ABOUT, 64 * MB)\n"
            "print(sum(cache.put([a]) for a in arrays_of(20)), cache.told())")  # fmt: skip
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = subprocess.run(
        process(tmp_path, body, tmp_path / "c"), cwd=ROOT, capture_output=True, text=True, timeout=patience(120)
    )
    count, told = done.stdout.split(" ", 1)
    assert told.startswith("Note: nothing more is kept in "), done
    assert "File too large" in told
    assert int(count) > 0
    assert all_there(tmp_path / "c", arrays_of(int(count)))


def test_a_full_and_a_read_only_disk(own_disks, tmp_path):  # noqa: F811
    body = ("cache = ArrayCache(Path(sys.argv[1]), ABOUT, 64 * MB)\n"
            "print(sum(cache.put([a]) for a in arrays_of(2000)), cache.told())")  # fmt: skip
    disk = tmp_path / "disk"
    disk.mkdir()
    command = process(tmp_path, body, disk)
    full = in_small_disk(disk, "size=64k", command)
    assert full.returncode == 0, full.stderr
    assert "Note: nothing more is kept" in full.stdout
    read_only = in_small_disk(disk, "ro", command)
    assert read_only.stdout.startswith("0 Note: nothing is kept in "), read_only.stdout + read_only.stderr
    assert "Read-only file system" in read_only.stdout


# --- pictures -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """A configuration, and paths of pictures of several kinds that were written long ago."""
    monkeypatch.setattr("trainers.core.loading.contents.SETTLED", 0.0)
    folder = tmp_path / "pictures"
    write_pictures(folder, {"train": [[f"a/{i}.{kind}", i, "a"] for i in range(6) for kind in ("jpg", "png")]}, 50)
    Image.new("RGBA", (70, 40), (20, 90, 200, 80)).save(folder / "a" / "clear.png")
    Image.new("L", (33, 90), 77).save(folder / "a" / "grey.png")
    settings = [
        ("CACHE.FOLDER", str(tmp_path / "c")),
        ("INPUT.SIZE", "(32, 32)"),
        ("DATASET.ROOT", str(tmp_path)),
        ("INPUT.INTERPOLATION", "bicubic"),
        ("INPUT.PIXEL_MEAN", (0.5,) * 3),
        ("INPUT.PIXEL_STD", (0.2,) * 3),
    ]
    cfg = configure(["configs/datasets/caltech101.yaml"], settings)
    return cfg, sorted(str(path) for path in folder.rglob("*.*"))


class Item:
    def __init__(self, path, label=0):
        self.impath, self.label, self.classname, self.domain = path, label, "a", 0


@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_resized_pictures_give_what_the_whole_transform_gives(pictures, mode):
    cfg, paths = pictures
    transform = Preprocessing((32, 32), (0.48, 0.45, 0.40), (0.26, 0.26, 0.27), resize_mode=mode).transform()
    expected = torch.stack([transform(read_picture(path)) for path in paths])
    for fresh in (True, False):
        kept = Pictures(cfg, [Item(path) for path in paths], transform=transform)
        kept.resized = ResizedPictures.of(cfg, transform, upright=False)
        assert kept.resized is not None
        batch = next(iter(DataLoader(kept, len(paths))))
        assert batch["img"].dtype == torch.uint8
        assert all(bool(key) == fresh for key in batch["fresh"])
        kept.resized.keep(batch)
        assert torch.equal(kept.numbers(batch["img"]), expected)


def test_transforms_that_cannot_be_parted_are_left_whole(pictures):
    cfg, _ = pictures
    pixels, numbers = [T.Resize(32), T.CenterCrop(32)], [T.ToTensor(), T.Normalize((0.5,) * 3, (0.2,) * 3)]
    assert ResizedPictures.of(cfg, T.Compose(pixels + numbers), False) is not None
    for steps in ([*pixels, T.RandomHorizontalFlip(), *numbers], [*pixels, *numbers, T.RandomErasing()], pixels):
        assert ResizedPictures.of(cfg, T.Compose(steps), False) is None
    assert is_fixed(T.Compose(pixels + numbers))
    assert not is_fixed(T.Compose([T.RandomResizedCrop(32), *numbers]))


def test_a_picture_that_is_written_again_is_another(pictures, tmp_path):
    _, paths = pictures
    contents = Contents(tmp_path / "index", 10 * MB)
    before = contents.key(paths[0], False)
    content, times = Path(paths[0]).read_bytes(), os.stat(paths[0])
    Path(paths[0]).write_bytes(content[::-1])
    os.utime(paths[0], ns=(times.st_atime_ns, times.st_mtime_ns))  # as cp -p and touch -r leave it
    assert contents.key(paths[0], False) != before
    assert contents.key(paths[0], True) != contents.key(paths[0], False)
    assert contents.key(paths[0] + ".gone", False) == b""


def test_a_picture_written_just_now_is_not_kept(pictures, tmp_path, monkeypatch):
    _, paths = pictures
    monkeypatch.setattr("trainers.core.loading.contents.SETTLED", 1e6)
    contents = Contents(tmp_path / "index", 10 * MB)
    assert contents.key(paths[0], False) == b""
    contents.of_all(paths)
    assert len(contents.kept) == 0


@pytest.mark.parametrize("keeps_times", [True, False])
def test_digests_are_of_what_the_files_hold_whatever_comes_to_stand_there(keeps_times, tmp_path, monkeypatch):
    """Folders swapped, links turned, files replaced by others of the same size and times; in this process and the next."""
    monkeypatch.setattr("trainers.core.loading.contents.SETTLED", 0.0)
    monkeypatch.setattr("trainers.core.loading.contents._keeps_times", lambda path: keeps_times)
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(3):
            (tmp_path / name / f"{i}.bmp").write_bytes(f"{name}{i}".encode() * 100)
            os.utime(tmp_path / name / f"{i}.bmp", ns=(10**18, 10**18))
    (tmp_path / "link").symlink_to("a")
    paths = [str(tmp_path / folder / f"{i}.bmp") for folder in ("a", "b", "link") for i in range(3)]

    def check(contents):
        expected = [hashlib.sha256(Path(path).read_bytes()).digest() for path in paths]
        assert contents.of_all(paths) == expected
        assert [contents.of(path) for path in paths] == expected

    first = Contents(tmp_path / "index", 10 * MB)
    check(first)
    assert len(first.kept) == (9 if keeps_times else 0)
    for old, new in (("a", "c"), ("b", "a"), ("c", "b")):
        (tmp_path / old).rename(tmp_path / new)
    check(first)
    check(Contents(tmp_path / "index", 10 * MB))
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("b")
    check(Contents(tmp_path / "index", 10 * MB))
    for path in paths[:3]:
        Path(f"{path}.new").write_bytes(Path(path).read_bytes()[::-1])
        os.utime(f"{path}.new", ns=(10**18, 10**18))
        os.replace(f"{path}.new", path)
    check(first)
    check(Contents(tmp_path / "index", 10 * MB))


def test_a_digest_is_not_computed_again(tmp_path, monkeypatch):
    monkeypatch.setattr("trainers.core.loading.contents.SETTLED", 0.0)
    (tmp_path / "a").write_bytes(b"a")
    found = Contents(tmp_path / "index", 10 * MB).of_all([str(tmp_path / "a")])
    monkeypatch.setattr("hashlib.file_digest", None)  # it cannot be read now
    assert Contents(tmp_path / "index", 10 * MB).of_all([str(tmp_path / "a")]) == found


def test_what_a_worker_finds_damaged_is_made_again(pictures):
    cfg, paths = pictures
    transform = T.Compose([T.Resize((32, 32)), T.ToTensor()])

    def pass_over():
        kept = Pictures(cfg, [Item(path) for path in paths], transform=transform)
        kept.resized = ResizedPictures.of(cfg, transform, upright=False)
        batch = next(iter(DataLoader(kept, len(paths), num_workers=1)))
        kept.resized.keep(batch)
        return kept.resized.cache, sum(map(bool, batch["fresh"]))

    cache, fresh = pass_over()
    assert fresh == len(paths)
    content = bytearray((cache.folder / "arrays").read_bytes())
    content[100] ^= 1
    (cache.folder / "arrays").write_bytes(content)
    cache, fresh = pass_over()
    assert fresh == 1
    assert "1 arrays" in cache.told()
    assert pass_over()[1] == 0


def test_large_photographs_are_put_away_before_more_are_decoded(pictures, monkeypatch):
    cfg, paths = pictures
    put, alive = Photographs.put, []
    monkeypatch.setattr("trainers.core.loading.loaders.AT_MOST", 1)  # bytes
    monkeypatch.setattr("trainers.core.loading.loaders.cores", lambda: 2)
    monkeypatch.setattr(Photographs, "put", lambda self, some: (alive.append(len(some)), put(self, some)))
    Pictures(cfg, [Item(path) for path in paths], is_train=True).keep()
    assert set(alive) <= {1, 2}
    assert sum(alive) == len(paths)
    assert Photographs(cfg, paths, False).missing() == []


def test_photographs_are_decoded_once(pictures, monkeypatch):
    cfg, paths = pictures
    items = [Item(path) for path in paths]
    expected = [np.asarray(Pictures(cfg, items)._decode(i)) for i in range(len(paths))]
    Pictures(cfg, items, is_train=True).keep()
    again = Pictures(cfg, items, is_train=True)
    monkeypatch.setattr(Pictures, "_decode", lambda self, idx: pytest.fail("it was decoded again"))
    again.keep()
    assert not again._kept  # nothing in this process's memory
    assert all(np.array_equal(again._photograph(i), picture) for i, picture in enumerate(expected))
    assert Photographs(cfg, paths, False).missing() == []


# --- features -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_features_of_every_precision(kind):
    features = torch.randn(5, 7).to(kind)
    assert torch.equal(from_array(as_array(features)), features)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("batch", [9, 14, 1])
def test_kept_features_are_those_of_the_same_batch(pictures, alone, batch, tmp_path):
    """Also by an encoder whose features depend on the batch, as some kernels' last bits do."""
    cfg, paths = pictures
    transform = T.Compose([T.Resize((32, 32)), T.ToTensor(), T.Normalize((0.5,) * 3, (0.2,) * 3)])
    encoded = []

    def encode(images):
        encoded.append(len(images))
        features = images.flatten(1)[:, :40].double()
        return features if alone else features + features.sum() * 1e-9

    def batches(size, some):
        data = Pictures(cfg, [Item(path, i) for i, path in enumerate(some)], transform=transform)
        loader = DataLoader(data, size)
        cache = opened(tmp_path / "features")
        frozen = FrozenFeatures(cache, encode, lambda b: (b["img"], b["label"]))
        before = torch.get_rng_state()
        plain = [(encode(b["img"]), b["label"], b["impath"]) for b in loader]
        after, _ = torch.get_rng_state(), torch.set_rng_state(before)
        encoded.clear()
        found = list(frozen.batches(loader))
        assert torch.equal(torch.get_rng_state(), after)  # the same draws as without a cache
        assert len(found) == len(plain) == len(frozen.batches(loader))
        for (features, labels, some_paths), own in zip(plain, found, strict=True):
            assert torch.equal(own["img"], features)
            assert torch.equal(own["label"], labels)
            assert own["impath"] == list(some_paths)
        return frozen

    frozen = batches(batch, paths)
    assert frozen.alone(batch) is (alone or batch == 1)  # of one picture, a batch is the same wherever it stands
    assert encoded
    batches(batch, paths)
    assert not encoded  # all from the cache
    batches(batch, paths[:batch][::-1] + paths[batch:])  # other batches of pictures that are known
    assert bool(encoded) == (not alone and batch > 1)
    in_order = DataLoader(Pictures(cfg, [Item(path) for path in paths], transform=transform), 4)
    features = frozen.of_set(in_order)
    assert torch.equal(features[:4], encode(torch.stack([in_order.dataset[i]["img"] for i in range(4)])))
    assert len(features) == len(paths)


def test_what_cannot_be_noted_is_not_tried_again(pictures, tmp_path):
    """Nothing can be kept: each batch is encoded once."""
    cfg, paths = pictures
    transform = T.Compose([T.Resize((32, 32)), T.ToTensor()])
    encoded = []

    def encode(images):
        encoded.append(len(images))
        return images.flatten(1)

    frozen = FrozenFeatures(opened(tmp_path / "c", limit=0), encode, lambda b: (b["img"], b["label"]))
    loader = DataLoader(Pictures(cfg, [Item(path) for path in paths], transform=transform), 5)
    frozen.of_set(loader)
    assert encoded == [5, 5, 5]
    assert frozen.batches(loader) is loader


def test_text_is_remembered(tmp_path):
    made = []

    def compute():
        made.append(torch.randn(2, 3, 4).bfloat16())
        return made[-1]

    for _ in range(2):
        remember = remembering(opened(tmp_path), torch.device("cpu"))
        assert torch.equal(remember(("hard", ["a {}."], ["cat"]), compute), made[0])
    assert len(made) == 1
    remember(("hard", ["a {}."], ["dog"]), compute)
    assert len(made) == 2


# --- scripts/caches.py --------------------------------------------------------------------------------------------------


def test_showing_and_clearing(filled, capsys, monkeypatch):
    root, _ = filled
    opened(root, ABOUT | {"holds": "resized"}).put(arrays_of(3))
    (root / "few_shot").mkdir()  # not a cache of arrays

    def command(*words):
        monkeypatch.setattr(sys, "argv", ["caches.py", "--folder", str(root), *words])
        return caches.main(), capsys.readouterr().out

    status, shown = command()
    assert status == 0
    assert [line.split()[:4] for line in shown.splitlines()[2:4]] == [
        ["features", "Caltech101", "in", "/data"], ["resized", "Caltech101", "in", "/data"],
    ]  # fmt: skip
    assert command("--clear", "resized")[1].startswith("Removed 1 caches")
    assert [cache.holds for cache in caches.found_below(root)] == ["features"]
    assert command("--clear")[1].startswith("Removed 1 caches")
    assert command()[1] == f"{root} holds nothing\n"
    assert (root / "few_shot").is_dir()


def test_cleared_while_in_use(filled):
    root, arrays = filled
    cache = opened(root)
    shutil.rmtree(cache.folder)
    assert np.array_equal(cache.get(arrays[0][0]), arrays[0][1])
    assert cache.put(arrays_of(30)) == 0
    assert "nothing more is kept" in cache.told()


def test_what_about_says(filled):
    root, _ = filled
    folder = opened(root).folder
    assert json.loads((folder / "about.json").read_text())["dataset"] == "Caltech101"
    (folder / "about.json").write_text("{")
    assert caches.found_below(root)[0].about == "nothing is known of it"
    opened(root)  # mends it
    assert caches.found_below(root)[0].about == "Caltech101 in /data"


@pytest.mark.parametrize("harm", ["link", "pipe", "somebody else's"])
def test_a_cache_that_is_not_ours_is_refused(harm, tmp_path, monkeypatch):
    about = {"holds": "texts", "what": 1}
    first = ArrayCache(tmp_path / "cache", about, MB)
    assert stat.S_IMODE(os.stat(first.folder / "arrays").st_mode) == 0o600
    mine = tmp_path / "mine"
    mine.write_text("thesis")
    (first.folder / "arrays").unlink()
    if harm == "link":
        (first.folder / "arrays").symlink_to(mine)
    elif harm == "pipe":
        os.mkfifo(first.folder / "arrays")
    elif os.getuid() == 0:
        os.chown(first.folder, 12345, -1)
    else:
        monkeypatch.setattr(os, "getuid", lambda: 12345)
    cache = ArrayCache(tmp_path / "cache", about, MB)
    assert cache.put([(key_of(1), np.zeros(3))]) == 0
    assert cache.trouble
    assert mine.read_text() == "thesis"


def test_a_cache_of_ones_own_is_taken_from_others_hands_and_its_root_left_as_it_is(tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o1777)
    folder = ArrayCache(tmp_path / "shared", {"holds": "texts"}, MB).folder
    folder.chmod(0o777)
    assert not ArrayCache(tmp_path / "shared", {"holds": "texts"}, MB).trouble
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o1777
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_a_pipe_in_the_place_of_about(tmp_path):
    folder = ArrayCache(tmp_path, {"holds": "texts"}, MB).folder
    (folder / "about.json").unlink()
    os.mkfifo(folder / "about.json")
    assert not ArrayCache(tmp_path, {"holds": "texts"}, MB).trouble
