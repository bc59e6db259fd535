"""People's own pictures: lists of them, groups, folds, uneven classes, and what is said of them before anything starts."""

import json
import math
import os
import shutil
import zlib
from collections import Counter
from pathlib import Path

import forked
import numpy as np
import pytest
import torch
from conftest import CLASSES, ROOT, write_pictures
from dassl.data.datasets import Datum
from PIL import Image

import datasets
from datasets.manifest import read_manifest
from datasets.splitting import fold, split
from harness.found import _is_dark, found
from harness.near_duplicates import pairs_above
from harness.report.collect import collect
from trainers.core.clip.backbones import load_backbone
from trainers.core.loading.loaders import build_data_manager
from trainers.core.loading.read import pictures_below
from trainers.core.settings.configure import configure

datasets.register_all()
ROWS = [(f"{name}/{i}.png", name) for name in CLASSES[:3] for i in range(10)]


@pytest.fixture
def pictures(tmp_path):
    """Thirty pictures of three classes, in folders that a list need not follow."""
    write_pictures(tmp_path, {"x": [[path, CLASSES.index(name), name] for path, name in ROWS]})
    return tmp_path


def listed(folder: Path, rows: list[tuple], columns: str = "path,class", name: str = "list.csv") -> Path:
    lines = [columns, *(",".join(map(str, row)) for row in rows)]
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


class TestManifests:
    def test_the_same_in_every_format(self, pictures):
        expected = read_manifest(listed(pictures, ROWS))
        assert [item.classname for item in expected.items] == [name for _, name in ROWS]
        assert [item.label for item in expected.items] == [CLASSES.index(name) for _, name in ROWS]
        assert (expected.parts, expected.groups) == ([], [])
        tabs = pictures / "list.tsv"
        tabs.write_text("File_Name\tLabel\n" + "".join(f"{path}\t{name}\n" for path, name in ROWS))
        lines = pictures / "list.jsonl"
        lines.write_text("\n".join(json.dumps({"image": path, "category": name}) for path, name in ROWS))
        with_marks = pictures / "excel.csv"
        with_marks.write_bytes(b"\xef\xbb\xbf" + (pictures / "list.csv").read_bytes().replace(b"\n", b"\r\n"))
        semicolons = pictures / "europe.csv"
        semicolons.write_text("\n  \npath;class\n" + "".join(f"{path};{name}\n\n" for path, name in ROWS))
        lists = pictures / "lists.jsonl"
        lists.write_text("".join(json.dumps({"path": p, "class": [name], "group": math.nan, "note": "\u2028"},
                                            ensure_ascii=False) + "\n" for p, name in ROWS))  # fmt: skip
        for other in (tabs, lines, with_marks, semicolons, lists):
            assert [vars(item) for item in read_manifest(other).items] == [vars(item) for item in expected.items]

    @pytest.mark.parametrize(
        ("columns", "rows", "said"),
        [
            ("path,clas", ROWS, 'has no column "class"; did you mean'),
            ("picture,class", [], "lists no picture"),
            ("path,class", [*ROWS, (ROWS[0][0], "ant")], 'stands twice, as "accordion" and as "ant"'),
            ("path,class", [*ROWS, ROWS[0]], "accordion/0.png stands twice"),
            ("path,class", [(ROWS[0][0], "accordion;ant"), *ROWS[1:]], "(accordion/0.png) has several classes"),
            ("path,class", [("", "ant"), *ROWS], "picture 1 has no path"),
            ("path,class", [(ROWS[0][0], ""), *ROWS[1:]], "picture 1 has no class"),
            ("path,class", [*ROWS, ("gone.png", "ant")], "lists 1 pictures that are not there, the first is"),
            ("path,class", ROWS[:10], 'one class alone, "accordion"'),
            ("path,class", [(*ROWS[0], "x"), *ROWS[1:]], "line 2 has more or fewer cells"),
            ("path,label,class_name", [(path, 0, name) for path, name in ROWS],
             'has two columns for the class, "label" and "class_name": keep one'),
            ("path,Class,class", [(*row, row[1]) for row in ROWS], 'has two columns "class": keep one'),
            ("path,class", [("list.csv", "ant"), *ROWS], "lists 1 files that are no pictures of a kind that is read"),
            ("path,class", [(ROWS[0][0], '"ant\nbee"'), *ROWS[1:]], "has a line break or the like"),
            ("path,klass", ROWS, 'has no column "class"'),
            ("path,class,part", [(*row, "17") for row in ROWS], 'the split, column "part", is "17": use train, val or'),
            ("path,class", [(ROWS[0][0], "NA"), *ROWS[1:]], 'has the class "NA", as R writes what is missing'),
            ("path,class,split", [(*row, "train") for row in ROWS], "has no pictures for test"),
            ("path,class,split", [(*ROWS[0], ""), *((*row, "test") for row in ROWS[1:])], "and none for"),
            ("path,class,split,group", [(*row, ("train", "test")[i % 2], "p") for i, row in enumerate(ROWS)],
             'the group "p" is in train and in test'),
        ],
    )  # fmt: skip
    def test_what_is_no_list_is_said(self, columns, rows, said, pictures):
        with pytest.raises((ValueError, FileNotFoundError)) as caught:
            read_manifest(listed(pictures, rows, columns))
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_what_other_programs_write(self, pictures):
        """An index without a name, tabs in a .csv, a spreadsheet's own line, Windows' paths, R's missing groups."""
        expected = [vars(item) for item in read_manifest(listed(pictures, ROWS)).items]
        written = {
            "pandas": ",path,class,\n" + "".join(f"{i},{path},{name},note\n" for i, (path, name) in enumerate(ROWS)),
            "tabs": "path\tclass\n" + "".join(f"{path}\t{name}\n" for path, name in ROWS),
            "excel": "sep=;\npath;class\n" + "".join(f"{path};{name}\n" for path, name in ROWS),
            "windows": "path,class\n" + "".join(f"{path},{name}\n".replace("/", "\\") for path, name in ROWS),
            "r": "path,class,group\n" + "".join(f"{path},{name},NA\n" for path, name in ROWS),
        }
        for program, text in written.items():
            (pictures / f"{program}.csv").write_text(text)
            found = read_manifest(pictures / f"{program}.csv")
            assert [vars(item) for item in found.items] == expected, program
            assert (found.parts, found.groups) == ([], []), program

    @pytest.mark.parametrize(
        ("line", "said"),
        [("{", "line 2 is no JSON"), ("[1]", "line 2 is no object"),
         ('{"path": "ant/0.png", "class": ["ant", "bass"]}', "has several classes"),
         ('{"path": "ant/0.png", "class": true}', "has True where text belongs"),
         ('{"path": "ant/0.png", "class": {"name": "ant"}}', "where text belongs"),
         ('{"path": "ant/0.png", "class": 1.5}', "has 1.5 where text belongs")],
    )  # fmt: skip
    def test_lines_of_json_that_say_something_else(self, line, said, pictures):
        file = pictures / "list.jsonl"
        file.write_text(json.dumps({"path": ROWS[0][0], "class": "accordion"}) + f"\n{line}\n")
        with pytest.raises(ValueError, match=said):
            read_manifest(file)

    def test_a_split_that_it_names(self, pictures):
        parts = ["train"] * 5 + ["valid"] * 2 + ["testing"] * 3
        file = listed(pictures, [(*row, parts[i % 10]) for i, row in enumerate(ROWS)], "path,class,split")
        dataset = own_pictures(pictures, "DATASET.SPLIT_FILE", file)
        assert [len(part) for part in (dataset.train_x, dataset.val, dataset.test)] == [15, 6, 9]
        with pytest.raises(ValueError, match=r"DATASET.FOLDS is for pictures without a test part, and .*list.csv has"):
            own_pictures(pictures, "DATASET.SPLIT_FILE", file, "DATASET.FOLDS", 3)


def own_pictures(folder, *settings):
    from dassl.data.datasets import build_dataset

    pairs = zip(settings[::2], map(str, settings[1::2]), strict=True)
    return build_dataset(configure([], [("DATASET.NAME", "FolderDataset"), ("DATASET.FOLDER", str(folder)), *pairs]))


def folders(place, **pictures):
    """A folder with `count` pictures in each of its folders."""
    for name, count in pictures.items():
        for i in range(count):
            path = place / name.replace("__", "/") / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (i, 0, 0)).save(path)
    return place


class TestFolders:
    def test_accents_are_compared_as_they_look(self, tmp_path):
        place = folders(tmp_path, train__oak=2, test__oak=1, train__café=2, test__other=1)
        (place / "test" / "other").rename(place / "test" / "café")
        (place / "classnames.txt").write_text("oak oak\ncafé coffee house\n")
        assert [item.classname for item in own_pictures(place).test] == ["coffee house", "oak"]

    def test_two_folders_that_look_alike(self, tmp_path):
        place = folders(tmp_path, oak=2, café=2, other=2)
        (place / "other").rename(place / "café")
        with pytest.raises(ValueError, match="is the class of more than one folder"):
            own_pictures(place)

    def test_a_name_that_is_not_utf_8(self, tmp_path):
        place = folders(tmp_path, oak=2, elm=2, other=2)
        (place / "other").rename(place / os.fsdecode(b"caf\xe9"))
        with pytest.raises(ValueError, match=r"the folder 'caf\\udce9' in .* is not called in UTF-8: rename it"):
            own_pictures(place)

    def test_what_is_not_read_is_said(self, tmp_path, capsys):
        place = folders(tmp_path, train__oak=2, train__elm=2, test__oak=1, test__elm=1, validate__oak=1)
        Image.new("RGB", (8, 8)).save(place / "test" / "loose.png")
        (place / "train" / "classnames.txt").write_text("oak oak\nelm elm\n")
        own_pictures(place)
        said = capsys.readouterr().out
        assert f"in {place}, 1 that are not read: validate" in said
        assert f"in {place / 'train'}, 1 that are not read: classnames.txt" in said
        assert f"in {place / 'test'}, 1 that are not read: loose.png" in said

    def test_a_class_in_both_writings_of_an_accent(self, tmp_path):
        place = folders(tmp_path, train__oak=2, train__café=2, test__oak=1, test__café=1, test__other=1)
        (place / "test" / "other").rename(place / "test" / "café")
        with pytest.raises(ValueError, match="and another folder there are called alike: put them together"):
            own_pictures(place)

    def test_a_damaged_picture_of_sixteen_bits_is_only_told_of(self, tmp_path):
        Image.fromarray(np.full((8, 8), 4000, np.uint16)).save(tmp_path / "a.png")
        assert _is_dark(str(tmp_path / "a.png"))
        whole = (tmp_path / "a.png").read_bytes()
        for cut in range(8, len(whole), 3):
            (tmp_path / "b.png").write_bytes(whole[:cut] + b"\xff\xff" + whole[cut + 2 :])
            _is_dark(str(tmp_path / "b.png"))

    def test_test_pictures_without_classes(self, tmp_path):
        place = folders(tmp_path, train__oak=2, train__elm=2, test=3)
        with pytest.raises(ValueError, match=r"test holds 3 pictures and no class folders, so nobody knows"):
            own_pictures(place)

    def test_a_class_of_files_that_are_not_read(self, tmp_path):
        place = folders(tmp_path, oak=2, elm=1)
        (place / "elm" / "0.png").rename(place / "elm" / "0.heic")
        with pytest.raises(ValueError, match=r"holds no picture \(1 files are no pictures.* save HEIC as JPEG\), but"):
            own_pictures(place)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may look into every folder")
    def test_a_folder_that_may_not_be_looked_into_unless_root(self, tmp_path):
        place = folders(tmp_path, oak=2, elm=1, elm__site=1)
        (place / "elm" / "site").chmod(0)
        with pytest.raises(PermissionError):
            own_pictures(place)

    def test_a_folder_that_is_gone_while_it_is_read(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            pictures_below(tmp_path / "gone")

    def test_twelve_bits_in_sixteen_are_said(self, tmp_path, tiny_clip_file):
        place = folders(tmp_path, oak=3, elm=3)
        for path in (place / "oak").iterdir():
            Image.fromarray(np.full((8, 8), 4000, np.uint16)).save(path)
        dataset = own_pictures(place)
        parts = {"train": dataset.train_x, "val": dataset.val or [], "test": dataset.test}
        said = "\n".join(found(parts, load_backbone(str(tiny_clip_file)), 1))
        assert "Note: 3 of 6 that were looked at have 16 bits and use less than an eighth of them" in said

    def test_a_broken_test_picture_ends_the_run_before_it_trains(self, tmp_path, tiny_clip_file):
        place = folders(tmp_path / "pictures", train__ant=2, train__bass=2, test__ant=2, test__bass=2)
        broken = place / "test" / "ant" / "1.png"
        whole = broken.read_bytes()
        broken.write_bytes(whole[:-30])
        words = ["--trainer", "CoOp", "--output-dir", tmp_path / "run", "--seed", "1", "--backbone", tiny_clip_file,
                 "DATASET.NAME", "FolderDataset", "DATASET.FOLDER", place, "DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "1",
                 "DATALOADER.NUM_WORKERS", "0", "TRAINER.COOP.N_CTX", "2", "TRAINER.COOP.PREC", "fp32"]  # fmt: skip
        run = forked.run("train.py", *words)
        assert run.returncode == 1
        assert "1.png" in run.stderr
        assert "epoch [1/1]" not in run.stdout
        broken.write_bytes(whole)
        run = forked.run("train.py", *words)
        assert run.returncode == 0, run.stderr


def items(counts: dict[str, int]) -> list[Datum]:
    return [
        Datum(impath=f"{name}/{i}.png", label=label, classname=name)
        for label, (name, count) in enumerate(counts.items())
        for i in range(count)
    ]


class TestSplitting:
    def test_each_picture_is_tested_once_and_classes_in_equal_shares(self):
        all_items = items({"a": 20, "b": 40})
        tested = Counter()
        for which in range(5):
            train, val, test = fold(all_items, [], 5, which)
            assert Counter(item.classname for item in test) == {"a": 4, "b": 8}
            assert {id(x) for x in train} | {id(x) for x in val} | {id(x) for x in test} == {id(x) for x in all_items}
            assert len(train) + len(val) + len(test) == 60
            assert 30 <= len(train) <= 36
            tested.update(item.impath for item in test)
        assert set(tested.values()) == {1}
        assert len(tested) == 60
        assert [x.impath for x in fold(all_items, [], 5, 1)[2]] == [x.impath for x in fold(all_items, [], 5, 1)[2]]

    def test_groups_are_never_torn(self):
        all_items = items({"a": 60, "b": 60})
        groups = [f"{item.classname}{i // 3}" for i, item in enumerate(all_items)]
        home = {item.impath: group for item, group in zip(all_items, groups, strict=True)}
        for parts in (split(all_items, groups), *(fold(all_items, groups, 4, which) for which in range(4))):
            homes = [{home[item.impath] for item in part} for part in parts]
            assert not homes[0] & homes[1] | homes[0] & homes[2] | homes[1] & homes[2]
            assert sum(map(len, parts)) == 120
            assert all({item.classname for item in part} == {"a", "b"} for part in parts)
        assert [len(part) for part in split(all_items, groups)] == pytest.approx([60, 24, 36], abs=6)

    def test_too_few_for_the_folds(self):
        with pytest.raises(ValueError, match=r'class "b" has 3 pictures, and 5 folds need 5: add some, or use fewer'):
            fold(items({"a": 9, "b": 3}), [], 5, 0)
        with pytest.raises(ValueError, match=r'class "b" has 1 groups, and 5 folds need 2: add some'):
            fold(items({"a": 9, "b": 3}), [*map(str, range(9)), "x", "x", "x"], 5, 0)
        with pytest.raises(ValueError, match=r"4 groups cannot be dealt into 5 folds: use fewer folds"):
            fold(items({"a": 9, "b": 9}), [str(i % 4) for i in range(18)], 5, 0)

    def test_classes_of_few_groups_are_trained_on_and_tested(self):
        """One group trains, the second tests, the third validates; a class of three large groups is in all parts."""
        all_items = items({"a": 40, "b": 12, "c": 8, "d": 3})
        size = {"a": 2, "b": 4, "c": 4, "d": 3}
        groups = [f"{x.classname}{int(x.impath.split('/')[1][:-4]) // size[x.classname]}" for x in all_items]
        train, val, test = (Counter(x.classname for x in part) for part in split(all_items, groups))
        assert (train["b"], val["b"], test["b"]) == (4, 4, 4)
        assert (train["c"], val["c"], test["c"]) == (4, 0, 4)
        assert (train["d"], val["d"], test["d"]) == (3, 0, 0)
        assert (train["a"], val["a"], test["a"]) == (20, 8, 12)
        patients = [("nominal", "P0"), ("crack", "P0"), ("nominal", "P1"), ("hole", "P1"), ("nominal", "P2")]
        own = [
            Datum(f"{i}.png", ["nominal", "crack", "hole"].index(name), classname=name)
            for i, (name, _) in enumerate(patients)
        ]
        train, _, _ = split(own, [patient for _, patient in patients])
        assert {x.classname for x in train} == {"nominal", "crack", "hole"}  # each rare one has one patient
        several = [f"both{i // 2}" for i in range(63)]  # groups across classes
        parts = split(all_items, several)
        assert sum(map(len, parts)) == 63
        for which in range(2):
            _, _, tested = fold(all_items[:60], groups[:60], 2, which)
            assert {x.classname for x in tested} == {"a", "b", "c"}


def test_folds_from_the_command_line(mini_root, literate_clip_file, tmp_path):
    """Zero-shot CLIP, which draws nothing, is tested fold by fold, too; the folds are a column's seeds."""
    pictures = mini_root / "caltech-101" / "101_ObjectCategories"
    file = tmp_path / "my list.csv"
    rows = [(pictures / name / f"{part}_{i}.jpg", name) for name in CLASSES[:3] for part in ("train", "test")
            for i in range(4)]  # fmt: skip
    listed(tmp_path, rows, name=file.name)
    words = ["zsclip,linear_probe", "fewshot", file, 2, "--cfg", "small", "--output", tmp_path / "out"]
    more = ["MODEL.BACKBONE.NAME", literate_clip_file, "DATALOADER.NUM_WORKERS", "0"]
    done = forked.run(ROOT / "scripts" / "run.py", *words, "--folds", 2, *more)
    assert done.returncode == 0, done.stderr
    assert "24 pictures of 3 classes, 8 each" in done.stdout
    assert "40 x 40 pixels" in done.stdout
    lines = [line for line in done.stdout.splitlines() if ": finished in" in line]
    assert len(lines) == 4, done.stdout  # a line for each run, and nothing of what they print
    assert "batch [" not in done.stderr + done.stdout
    runs = collect(tmp_path / "out").runs
    assert {(run.method, run.seed, run.config, run.details["total"]) for run in runs} == {
        (method, seed, "small folds2", 12) for method in ("ZeroshotCLIP", "LinearProbe") for seed in (1, 2)
    }
    (zero,) = (run for run in runs if run.method == "ZeroshotCLIP" and run.seed == 2)
    assert "--folds 2" in zero.command
    assert "SEEDS=2" in zero.command
    for words_of, said in (("--folds 1", "--folds is 1: use 2 or more"), ("--folds 2 --seeds 3", "and seeds from 1 to"),
                           ("DATASET.FOLDS 2", "DATASET.FOLDS is not set here, but by --folds")):  # fmt: skip
        refused = forked.run(ROOT / "scripts" / "run.py", *words, *words_of.split(), *more)
        assert refused.returncode == 2
        assert said in refused.stderr


def test_uneven_classes_are_said_and_drawn_alike(literate_clip_file, tmp_path):
    counts = {"ant": 40, "bass": 8}
    write_pictures(tmp_path, {"x": [[f"{name}/{i}.png", 0, name] for name, n in counts.items() for i in range(n)]})
    settings = [("DATASET.NAME", "FolderDataset"), ("DATASET.FOLDER", str(tmp_path)), ("DATALOADER.NUM_WORKERS", "0"),
                ("INPUT.SIZE", "(32, 32)"), ("MODEL.BACKBONE.NAME", str(literate_clip_file)), ("SEED", "1"),
                ("INPUT.PIXEL_MEAN", "[0.5, 0.5, 0.5]"), ("INPUT.PIXEL_STD", "[0.5, 0.5, 0.5]"),
                ("INPUT.INTERPOLATION", "bicubic"), ("INPUT.RESIZE_MODE", "shortest"),
                ("DATALOADER.TRAIN_X.BATCH_SIZE", "4")]  # fmt: skip
    drawn = {}
    for sampler in ("RandomSampler", "WeightedRandomSampler"):
        torch.manual_seed(0)
        manager = build_data_manager(configure([], [*settings, ("DATALOADER.TRAIN_X.SAMPLER", sampler)]))
        loader = manager.train_loader_x
        drawn[sampler] = Counter(label for _ in range(20) for batch in loader for label in batch["label"].tolist())
        assert len(loader) == 6
    assert drawn["RandomSampler"][0] > 3 * drawn["RandomSampler"][1]
    assert drawn["WeightedRandomSampler"][0] == pytest.approx(drawn["WeightedRandomSampler"][1], rel=0.2)
    dataset = manager.dataset
    parts = {"train": dataset.train_x, "val": dataset.val, "test": dataset.test}
    said = "\n".join(found(parts, load_backbone(str(literate_clip_file)), -1))
    assert "48 pictures of 2 classes, 8 to 40 each; 24 train, 10 val, 14 test; 40 x 40 pixels" in said
    assert 'classes are uneven: "ant" trains with 20 pictures, "bass" with 4' in said
    assert "uneven" not in "\n".join(found(parts, load_backbone(str(literate_clip_file)), 4))
    image = Image.new("1", (1, 1))
    image.save(tmp_path / "x.png")
    header = (tmp_path / "x.png").read_bytes()
    huge = header[:16] + (20_000).to_bytes(4, "big") * 2 + header[24:29] + zlib.crc32(
        header[12:16] + (20_000).to_bytes(4, "big") * 2 + header[24:29]).to_bytes(4, "big") + header[33:]  # fmt: skip
    (tmp_path / "slide.png").write_bytes(huge)
    parts["val"] = [*dataset.val, Datum(str(tmp_path / "slide.png"), 0, classname="ant")]
    assert "cannot be read" in "\n".join(found(parts, load_backbone(str(literate_clip_file)), 4))


def test_near_duplicates_are_found(mini_root, literate_clip_file, tmp_path):
    folder = mini_root / "caltech-101" / "101_ObjectCategories" / "ant"
    shutil.copy(folder / "train_0.jpg", tmp_path / "again.jpg")
    tested = [str(tmp_path / "again.jpg"), str(folder / "test_0.jpg")]
    others = [str(folder / f"train_{i}.jpg") for i in range(4)]
    (tmp_path / "half.png").write_bytes((folder / "test_0.jpg").read_bytes()[:200])
    half = str(tmp_path / "half.png")
    pairs, unreadable = pairs_above([half, *tested], others, load_backbone(str(literate_clip_file)), 0.999)
    assert pairs == [(pytest.approx(1.0, abs=1e-5), tested[0], others[0])]
    assert unreadable.keys() == {half}
    assert unreadable[half].startswith(f"{half} cannot be decoded")
    assert pairs_above([half], others, load_backbone(str(literate_clip_file)), 0.9) == ([], unreadable)
    pictures = shutil.copytree(mini_root / "caltech-101" / "101_ObjectCategories", tmp_path / "pictures")
    words = [pictures, "--backbone", literate_clip_file, "--above", "-1"]
    done = forked.run(ROOT / "scripts" / "near_duplicates.py", *words, "--csv", tmp_path / "pairs.csv")
    assert done.returncode == 0, done.stderr
    count = len((tmp_path / "pairs.csv").read_text().splitlines()) - 1
    assert f"{count} of {count} test pictures are at least -1 alike" in done.stdout
    assert forked.run(ROOT / "scripts" / "near_duplicates.py", "/nowhere").returncode == 2
    shutil.copy(half, pictures / "ant")
    done = forked.run(ROOT / "scripts" / "near_duplicates.py", *words)
    assert done.returncode == 1
    assert "ant/half.png cannot be decoded" in done.stderr
    assert f" of {count} test pictures are" in done.stdout or f" of {count + 1} test" in done.stdout


def test_two_lists_of_one_name_are_two_rows(tmp_path):
    for digest, method in (("a" * 64, "CoOp"), ("b" * 64, "LASP")):
        folder = tmp_path / "fewshot" / "photos" / "shots_16" / method / "small" / "seed1"
        folder.mkdir(parents=True)
        identity = {"settings": {"DATASET.NAME": "FolderDataset", "TRAINER.NAME": method}, "data": {"test": digest}}
        results = {
            "accuracy": 50.0,
            "trainer": method,
            "dataset": "FolderDataset",
            "seed": 1,
            "shots": 16,
            "identity": identity,
        }
        (folder / "results.json").write_text(json.dumps(results))
        about = {"protocol": "fewshot", "part": "", "source": "", "dataset": "photos", "trainer": method, "config": "small",
                 "tag": "", "shots": 16, "seed": 1, "command": "x"}  # fmt: skip
        (folder / "run.json").write_text(json.dumps(about))
    assert {run.dataset for run in collect(tmp_path).runs} == {"photos (pictures aaaaaa)", "photos (pictures bbbbbb)"}


def test_notes_of_several_runs_reach_the_screen_once(mini_root, literate_clip_file, tmp_path):
    pictures = mini_root / "caltech-101" / "101_ObjectCategories"
    rows = [
        (pictures / name / f"train_{i}.jpg", name, "train" if i < 3 else "test")
        for name in CLASSES[:2]
        for i in range(5)
    ]
    shutil.copy(rows[0][0], tmp_path / "again.jpg")
    listed(tmp_path, [*rows, ("again.jpg", CLASSES[0], "test")], "path,class,split")
    words = [
        "zsclip,gda,linear_probe",
        "main",
        tmp_path / "list.csv",
        4,
        "--cfg",
        "small",
        "--output",
        tmp_path / "out",
    ]
    more = ["--seeds", "1", "MODEL.BACKBONE.NAME", literate_clip_file, "DATALOADER.NUM_WORKERS", "0"]
    done = forked.run(ROOT / "scripts" / "run.py", *words, *more)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Note: 1 of 5 test pictures are training pictures, too") == 1
    assert done.stdout.count("Note: 2 classes have fewer than 4 training pictures") == 1


def test_templates_that_a_method_does_not_read_are_refused(mini_root, tiny_clip_file, tmp_path):
    words = ["main", "caltech101", 2, "--data", mini_root, "--cfg", "small", "--output", tmp_path, "--dry-run"]
    for method, key, value, title in (("coop", "DATASET.TEMPLATE", "a {}.", "CoOp"),
                                      ("gda", "DATASET.TEMPLATE_GROUPS", "[['a {}.']]", "GDA")):  # fmt: skip
        done = forked.run(ROOT / "scripts" / "run.py", method, *words, key, value)
        assert done.returncode == 2
        assert f"{key} does nothing for {title}: leave it out" in done.stderr
    for method, key, value in (
        ("kgcoop", "DATASET.TEMPLATE", "a {}."),
        ("zsclip_head", "DATASET.TEMPLATE_GROUPS", "[['a {}.']]"),
    ):
        assert forked.run(ROOT / "scripts" / "run.py", method, *words, key, value).returncode == 0
