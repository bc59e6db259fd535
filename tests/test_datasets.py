"""Every benchmark, read from a miniature of its real layout; folders of one's own; the demo."""

import json
import os
import random
import shutil

import clip
import pytest
from conftest import write_pictures
from dassl.data.datasets import DATASET_REGISTRY, Datum
from PIL import Image
from test_dassl_interface import config

from datasets.drawing import world
from datasets.drawing.styles import STYLES
from datasets.drawn import VERSION, DrawnBenchmark
from datasets.few_shot import _draw_digest, random_split, subsample_classes
from harness.catalog import registry_names

SPLIT_FILES = {
    "OxfordPets": ("oxford_pets", "images", "split_zhou_OxfordPets.json", "{c}_{i}.jpg"),
    "OxfordFlowers": ("oxford_flowers", "jpg", "split_zhou_OxfordFlowers.json", "image_{i:05d}.jpg"),
    "Food101": ("food-101", "images", "split_zhou_Food101.json", "{c}/{i}.jpg"),
    "StanfordCars": ("stanford_cars", "", "split_zhou_StanfordCars.json", "cars_train/{i:05d}.jpg"),
    "SUN397": ("sun397", "SUN397", "split_zhou_SUN397.json", "a/{c}/sun_{i}.jpg"),
    "DescribableTextures": ("dtd", "images", "split_zhou_DescribableTextures.json", "{c}/{c}_{i:04d}.jpg"),
    "EuroSAT": ("eurosat", "2750", "split_zhou_EuroSAT.json", "{c}/{c}_{i}.jpg"),
    "UCF101": ("ucf101", "UCF-101-midframes", "split_zhou_UCF101.json", "{c}/v_{c}_g01_c{i:02d}.jpg"),
    "Caltech101": ("caltech-101", "101_ObjectCategories", "split_zhou_Caltech101.json", "{c}/image_{i:04d}.jpg"),
    "QuickDraw": ("quickdraw", "images", "split_quickdraw.json", "{c}/{i:03d}.png"),
    "CIFAR10Photos": ("cifar10", "images", "split_cifar10.json", "{c}/test_{i:05d}.png"),
}
DRAWN = [n for n in registry_names() if issubclass(DATASET_REGISTRY.get(n), DrawnBenchmark)]
PARTS = ("train", "val", "test")
NAMES = ["bengal", "abyssinian", "2012 Tesla Model S", "zebra"]


def build(name, root, **settings):
    return DATASET_REGISTRY.get(name)(config(root, NAME=name, **settings))


@pytest.mark.parametrize("name", SPLIT_FILES)
def test_benchmarks_with_a_split_file(name, tmp_path):
    folder, images, split_file, pattern = SPLIT_FILES[name]
    numbers = iter(range(1, 1000))
    split = {
        part: [[pattern.format(c=c, i=next(numbers)), y, c] for y, c in enumerate(NAMES) for _ in range(n)]
        for part, n in (("train", 3), ("val", 2), ("test", 2))
    }
    write_pictures(tmp_path / folder / images, split, 8)
    (tmp_path / folder / split_file).write_text(json.dumps(split))
    dataset = build(name, tmp_path)
    assert (len(dataset.train_x), len(dataset.val), len(dataset.test)) == (12, 8, 8)
    assert dataset.classnames == dataset.all_class_names == NAMES
    assert all(os.path.isfile(x.impath) for x in dataset.train_x + dataset.val + dataset.test)
    new = build(name, tmp_path, NUM_SHOTS=1, SUBSAMPLE_CLASSES="new")
    assert (new.classnames, new.all_class_names) == (NAMES[2:], NAMES)
    assert [x.label for x in new.train_x] == [0, 1]


SYNSETS = {"n01440764": "tench", "n01443537": "goldfish", "n02391049": "zebra"}


def imagenet(root, folder, places):
    text = "\n".join(f"{s} {n}" for s, n in SYNSETS.items())
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / "classnames.txt").write_text(text + "\n")
    for place in places:
        write_pictures(
            root / folder / place,
            {"x": [[f"{s}/{i}.JPEG", y, n] for y, (s, n) in enumerate(SYNSETS.items()) for i in range(2)]},
            8,
        )


def test_imagenet(tmp_path):
    imagenet(tmp_path, "imagenet", ["images/train", "images/val"])
    dataset = build("ImageNet", tmp_path, NUM_SHOTS=1)
    assert dataset.classnames == list(SYNSETS.values())
    assert (len(dataset.train_x), len(dataset.test)) == (3, 6)
    assert {x.impath.split("/")[-3] for x in dataset.test} == {"val"}


@pytest.mark.parametrize(
    ("name", "folder", "images"),
    [
        ("ImageNetSketch", "imagenet-sketch", "images"),
        ("ImageNetA", "imagenet-adversarial", "imagenet-a"),
        ("ImageNetR", "imagenet-rendition", "imagenet-r"),
    ],
)
def test_imagenet_variants(name, folder, images, tmp_path):
    """Class names come from the variant's own list, or from ImageNet's; README.txt is no class."""
    imagenet(tmp_path, folder, [images])
    (tmp_path / folder / images / "README.txt").write_text("about")
    for own_list in (True, False):
        dataset = build(name, tmp_path, NUM_SHOTS=16)
        assert len(dataset.test) == 6
        assert dataset.classnames == list(SYNSETS.values())
        if own_list:
            (tmp_path / "imagenet").mkdir()
            (tmp_path / folder / "classnames.txt").rename(tmp_path / "imagenet" / "classnames.txt")


def test_a_class_without_test_pictures_moves_no_other_label(tmp_path):
    imagenet(tmp_path, "imagenet", ["images/train", "images/val"])
    val = tmp_path / "imagenet" / "images" / "val"
    first, *others = sorted(path.name for path in val.iterdir() if path.is_dir())
    shutil.rmtree(val / first)
    dataset = build("ImageNet", tmp_path, NUM_SHOTS=1)
    names = {item.label: item.classname for item in dataset.train_x}
    assert {item.label for item in dataset.test} == set(range(1, len(others) + 1))
    assert all(names[item.label] == item.classname for item in dataset.test)
    (tmp_path / "imagenet" / "images" / "train" / others[0]).rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=f"{others[0]} is a class without training pictures"):
        build("ImageNet", tmp_path, NUM_SHOTS=1)


def test_imagenetv2_folders_are_labels(tmp_path):
    folder = tmp_path / "imagenetv2"
    images = folder / "imagenetv2-matched-frequency-format-val"
    write_pictures(images, {"x": [[f"{y}/{i}.jpeg", y, ""] for y in range(3) for i in range(2)]}, 8)
    (folder / "classnames.txt").write_text("\n".join(f"{s} {n}" for s, n in SYNSETS.items()))
    dataset = build("ImageNetV2", tmp_path)
    assert [(x.label, x.classname) for x in dataset.test[::2]] == list(enumerate(SYNSETS.values()))
    (images / "2").rename(images / "3")
    with pytest.raises(ValueError, match=r'not the same \("2"\): labels would be off'):
        build("ImageNetV2", tmp_path)


def test_aircraft_reads_text_lists(tmp_path):
    folder = tmp_path / "fgvc_aircraft"
    folder.mkdir()
    (folder / "variants.txt").write_text("707-320\nA340-200\n")
    for part, lines in {
        "train": ["0034309 707-320", "0034310 A340-200"],
        "val": ["1 A340-200"],
        "test": ["2 707-320"],
    }.items():
        (folder / f"images_variant_{part}.txt").write_text("\n".join(lines) + "\n")
    dataset = build("FGVCAircraft", tmp_path)
    assert [(os.path.basename(x.impath), x.label, x.classname) for x in dataset.train_x] == [
        ("0034309.jpg", 0, "707-320"), ("0034310.jpg", 1, "A340-200"),
    ]  # fmt: skip
    (folder / "images_variant_val.txt").write_text("1 A341\n")
    with pytest.raises(ValueError, match=r"not in variants\.txt"):
        build("FGVCAircraft", tmp_path)


@pytest.mark.parametrize("name", [n for n in registry_names() if n not in (*DRAWN, "FolderDataset")])
def test_missing_data_name_the_command(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is missing: python scripts/prepare_data.py \w+ --root"):
        build(name, tmp_path)


class TestFolderDataset:
    def folder(self, tmp_path, *parts):
        for part in parts or ("",):
            write_pictures(
                tmp_path / part,
                {"x": [[f"{c}/{i}.png", y, c] for y, c in enumerate(("cat", "dog")) for i in range(10)]},
                8,
            )
        return build("FolderDataset", tmp_path, FOLDER=str(tmp_path))

    def test_class_folders(self, tmp_path):
        first = self.folder(tmp_path)
        assert (len(first.train_x), len(first.val), len(first.test)) == (10, 4, 6)
        again = build("FolderDataset", tmp_path, FOLDER=str(tmp_path))
        assert [x.impath for x in again.test] == [x.impath for x in first.test]

    def test_with_parts(self, tmp_path):
        dataset = self.folder(tmp_path, "train", "test")
        assert (len(dataset.train_x), len(dataset.test)) == (20, 20)
        assert dataset.classnames == ["cat", "dog"]

    def test_with_a_split_file(self, tmp_path):
        self.folder(tmp_path)
        rows = {p: [[f"cat/{i}.png", 0, "cat"], [f"dog/{i}.png", 1, "dog"]] for i, p in enumerate(PARTS)}
        (tmp_path / "my.json").write_text(json.dumps(rows))
        dataset = build("FolderDataset", tmp_path, FOLDER=str(tmp_path), SPLIT_FILE=str(tmp_path / "my.json"))
        assert len(dataset.test) == 2

    def test_a_class_without_training_pictures_is_named(self, tmp_path):
        """Otherwise the names of all classes after it would move to their neighbours' pictures, unnoticed."""
        self.folder(tmp_path)
        (tmp_path / "ant").mkdir()
        (tmp_path / "ant" / "._0.png").write_bytes(b"what macOS leaves behind")
        with pytest.raises(ValueError, match="ant holds no picture, but stands for a class"):
            build("FolderDataset", tmp_path, FOLDER=str(tmp_path))
        Image.new("RGB", (8, 8)).save(tmp_path / "ant" / "only.png")
        alone = build("FolderDataset", tmp_path, FOLDER=str(tmp_path))
        assert alone.classnames == ["ant", "cat", "dog"]
        assert [x.impath for x in alone.train_x if x.classname == "ant"] == [str(tmp_path / "ant" / "only.png")]
        rows = {p: [[f"cat/{i}.png", 1, "cat"], [f"dog/{i}.png", 2, "dog"]] for i, p in enumerate(PARTS)}
        (tmp_path / "my.json").write_text(json.dumps(rows))
        with pytest.raises(
            ValueError, match=r"label 0 \(no class\) has no training picture: number the classes from 0"
        ):
            build("FolderDataset", tmp_path, FOLDER=str(tmp_path), SPLIT_FILE=str(tmp_path / "my.json"))

    def test_faults(self, tmp_path):
        with pytest.raises(ValueError, match="needs a folder"):
            build("FolderDataset", tmp_path)
        with pytest.raises(FileNotFoundError, match="nowhere is missing"):
            build("FolderDataset", tmp_path, FOLDER=str(tmp_path / "nowhere"))
        with pytest.raises(ValueError, match="holds no class folders"):
            build("FolderDataset", tmp_path, FOLDER=str(tmp_path))
        self.folder(tmp_path, "train", "test")
        (tmp_path / "test" / "horse").mkdir()
        with pytest.raises(ValueError, match="horse is a class without training pictures"):
            build("FolderDataset", tmp_path, FOLDER=str(tmp_path))


def pixels(items):
    return [Image.open(x.impath).tobytes() for x in items]


@pytest.mark.parametrize("name", DRAWN)
def test_drawn_benchmarks_are_always_the_same_and_no_picture_stands_twice(name, tmp_path, monkeypatch):
    monkeypatch.setattr(DATASET_REGISTRY.get(name), "per_class", {"train": 2, "val": 1, "test": 2})
    first, second = build(name, tmp_path / "a"), build(name, tmp_path / "b")
    things = DATASET_REGISTRY.get(name).things
    assert first.classnames == things
    assert len(set(things)) == len(things) >= 10
    parts = [first.test] if first.test_only else [first.train_x, first.val, first.test]
    assert [len(part) for part in parts] == [len(things) * n for n in ((2,) if first.test_only else (2, 1, 2))]
    drawn = [picture for part in parts for picture in pixels(part)]
    assert len(set(drawn)) == len(drawn)
    assert pixels(second.test) == pixels(first.test)


def test_the_demo_is_drawn_once_and_has_styles(tmp_path):
    first = build("StyledThings", tmp_path)
    assert (len(first.train_x), len(first.val), len(first.test)) == (600, 300, 1200)
    assert {x.domain for x in first.test} == set(range(len(STYLES)))
    written = os.stat(first.test[0].impath).st_mtime_ns
    some = build("StyledThings", tmp_path, SOURCE_DOMAINS=("clean",), TARGET_DOMAINS=("dark", "sketch"))
    assert os.stat(first.test[0].impath).st_mtime_ns == written
    assert ({x.domain for x in some.train_x}, {x.domain for x in some.test}) == ({0}, {4, 9})
    with pytest.raises(ValueError, match='style "Dark" is unknown'):
        build("StyledThings", tmp_path, TARGET_DOMAINS=("Dark",))
    split = tmp_path / "drawn" / "styled" / "split.json"
    split.write_text(split.read_text().replace(f'"version": {VERSION}', '"version": 0'))
    with pytest.raises(ValueError, match="styled was drawn by another version of this project: remove it"):
        build("StyledThings", tmp_path)


def test_every_word_of_a_caption_is_among_those_that_the_small_clip_keeps():
    """A token that is not has a zero embedding in the file, as if it were nobody's."""
    kept = {token for text in world.all_words() for token in clip.tokenize(text)[0].tolist()}
    rng = random.Random(0)
    for _ in range(3000):
        view = world.view(rng)
        style = rng.choice(list(STYLES))
        text = world.caption(rng, world.words(rng, view), style, rng.random() < 0.2)
        missing = [token for token in clip.tokenize(text)[0].tolist() if token not in kept]
        assert not missing, (text, missing)


def test_base_and_new_halves():
    items = [Datum(impath=str(y), label=y, classname=str(y)) for y in (4, 0, 2, 3, 1)]
    base, new = (subsample_classes(items, subsample=part)[0] for part in ("base", "new"))
    assert sorted((x.classname, x.label) for x in base) == [("0", 0), ("1", 1), ("2", 2)]
    assert sorted((x.classname, x.label) for x in new) == [("3", 0), ("4", 1)]
    with pytest.raises(ValueError, match="use all, base, new or joint"):
        subsample_classes(items, subsample="old")
    with pytest.raises(ValueError, match="of 1 classes 0 would be new"):
        subsample_classes(items[:1], subsample="new")


def test_random_split_loses_nothing():
    items = [Datum(impath=f"{i}.jpg", label=i % 2, classname=f"c{i % 2}") for i in range(20)]
    parts = random_split(items, (0.5, 0.2))
    assert [len(part) for part in parts] == [10, 4, 6]
    assert sorted(x.impath for part in parts for x in part) == sorted(x.impath for x in items)
    assert all({x.label for x in part} == {0, 1} for part in parts)


def test_a_draw_is_the_seeds_whatever_was_drawn_before_or_is_noted(tmp_path):
    """Python's generator is left as it was, so that a folder that cannot be written changes nothing either."""
    split = {p: [[f"{c}/{p}{i}.jpg", y, c] for y, c in enumerate(NAMES) for i in range(20)] for p in PARTS}
    folder = tmp_path / "caltech-101"
    write_pictures(folder / "101_ObjectCategories", split, 8)
    (folder / "split_zhou_Caltech101.json").write_text(json.dumps(split))
    cfg = config(tmp_path, NUM_SHOTS=2)
    cfg.SEED, drawn = 1, []
    for before in (1, 99, 1):
        random.seed(before)
        state = random.getstate()
        drawn.append([item.impath for item in DATASET_REGISTRY.get("Caltech101")(cfg).train_x])
        assert random.getstate() == state
        note = folder / "split_fewshot" / "shot_2-seed_1.json"
        record = json.loads(note.read_text())
        record["train"][0] = next(i for i in range(20) if i not in record["train"])  # another draw, whole by its digest
        record["draw_sha256"] = _draw_digest(record)
        note.write_text(json.dumps(record))
    assert drawn[0] == drawn[1] == drawn[2]


def test_a_read_only_folder_is_no_reason_to_stop(tmp_path, capsys, monkeypatch):
    """The draw is made again instead of being noted."""
    split = {p: [[f"{c}/{p}{i}.jpg", y, c] for y, c in enumerate(NAMES) for i in range(3)] for p in PARTS}
    folder = tmp_path / "caltech-101"
    write_pictures(folder / "101_ObjectCategories", split, 8)
    (folder / "split_zhou_Caltech101.json").write_text(json.dumps(split))
    (folder / "split_fewshot").write_text("a file where the folder should be")
    assert len(build("Caltech101", tmp_path, NUM_SHOTS=1).train_x) == 4
    cfg = config(tmp_path, NUM_SHOTS=1)
    cfg.SEED = 1
    assert len(DATASET_REGISTRY.get("Caltech101")(cfg).train_x) == 4
    assert "is not noted" in capsys.readouterr().out
