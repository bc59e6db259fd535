"""Whatever is reused first proves that it is what was asked for; numbers that are no numbers are refused."""

import copy
import io
import json
import os
import random
import shutil
import warnings

import forked
import numpy as np
import pytest
import torch
from conftest import CLASSES, ROOT, golden_state, run_train, write_pictures
from dassl.data.datasets import build_dataset
from PIL import Image, ImageOps
from test_runs import arguments, fails

import datasets
from datasets.few_shot import read_split
from trainers.core.clip.backbones import as_backbone, load_backbone
from trainers.core.loading.read import ImageError, read_picture
from trainers.core.runs.folder import RunFolder
from trainers.core.runs.identity import Identity, fingerprint
from trainers.core.settings.configure import configure
from trainers.core.training import checkpoints
from trainers.core.training.evaluation import Logits, evaluate
from trainers.mocoop.trainer import MixtureCLIP


def protocol(*words, **environment):
    return forked.run(ROOT / "scripts" / "run.py", *words, env=environment or None)


@pytest.fixture(scope="session")
def one_run(mini_root, tiny_clip_file, tmp_path_factory):
    """A finished run of CoOp through scripts/run.py: (words, output)."""
    out = tmp_path_factory.mktemp("protocol") / "out"
    words = ["coop", "main", "caltech101", "4", "--data", mini_root, "--output", out, "--cfg", "small", "--seeds", "1",
             "MODEL.BACKBONE.NAME", tiny_clip_file, "OPTIM.MAX_EPOCH", "2", "DATALOADER.NUM_WORKERS", "0",
             "DATALOADER.TRAIN_X.BATCH_SIZE", "8"]  # fmt: skip
    process = protocol(*words)
    assert process.returncode == 0, process.stderr
    return words, out


@pytest.fixture
def copied(one_run, mini_root, tmp_path):
    """The same run and its data, to be harmed: (words, output, data)."""
    words, out = one_run
    own_out, own_data = tmp_path / "out", tmp_path / "data"
    shutil.copytree(out, own_out)
    shutil.copytree(mini_root, own_data)
    return [{out: own_out, mini_root: own_data}.get(w, w) for w in words], own_out, own_data


def folder_of(out):
    return out / "fewshot/caltech101/shots_4/CoOp/small/seed1"


class TestSkipping:
    def refused(self, words, *expected):
        process = protocol(*words)
        assert process.returncode == 2, process.stderr
        (line,) = process.stderr.strip().splitlines()
        for word in expected:
            assert word in line, line
        assert "skipped" not in process.stdout

    def test_a_run_says_what_it_is(self, one_run):
        about = json.loads((folder_of(one_run[1]) / "run.json").read_text())
        assert (about["protocol"], about["dataset"], about["trainer"], about["seed"], about["shots"]) == (
            "fewshot", "caltech101", "CoOp", 1, 4,
        )  # fmt: skip
        assert about["command"].startswith("SEEDS=1 DATA=")
        assert "bash scripts/coop/main.sh caltech101 4" in about["command"]
        assert set(about["identity"]["data"]) == {"train", "val", "test"}

    def test_the_same_is_skipped(self, copied):
        process = protocol(*copied[0])
        assert process.returncode == 0, process.stderr
        assert "is finished: skipped" in process.stdout

    def test_other_settings_are_refused_and_have_a_place_of_their_own(self, copied):
        words, out, _ = copied
        words = [*words[: words.index("--seeds")], "--seeds", "1 2", *words[words.index("--seeds") + 2 :]]
        self.refused([*words, "OPTIM.LR", "0.5"], "OPTIM.LR was 0.03, now 0.5", "TAG=name or another OUTPUT=folder")
        assert not (folder_of(out).parent / "seed2").exists()
        listed = protocol(*words, "OPTIM.LR", "0.5", "--tag", "fast", "--dry-run")
        assert f"to do      {folder_of(out).parent / 'tag_fast' / 'seed1'}" in listed.stdout

    def test_other_pictures_are_refused(self, copied):
        words, _, data = copied
        picture = data / "caltech-101" / "101_ObjectCategories" / "ant" / "test_0.jpg"
        picture.write_bytes(picture.read_bytes() + b" ")
        self.refused(words, "other test pictures")

    def test_pictures_of_the_same_size_and_times_are_others_all_the_same(self, copied):
        words, _, data = copied
        folder = data / "caltech-101" / "101_ObjectCategories"
        times = os.stat(folder / "ant" / "test_0.jpg")
        content = bytearray((folder / "ant" / "test_0.jpg").read_bytes())
        content[-100] ^= 1
        (folder / "ant" / "test_0.jpg").write_bytes(content)
        os.utime(folder / "ant" / "test_0.jpg", ns=(times.st_atime_ns, times.st_mtime_ns))
        self.refused(words, "other test pictures")

    def test_what_older_runs_did_not_note_is_said_and_not_made_up(self, copied):
        words, out, _ = copied
        file = folder_of(out) / "run.json"
        about = json.loads(file.read_text())
        del about["identity"]["contents"]
        file.write_text(json.dumps(about))
        process = protocol(*words)
        assert process.returncode == 0, process.stderr
        assert "is finished: skipped" in process.stdout
        assert "runs noted only the sizes of their pictures" in process.stdout
        assert not json.loads(file.read_text())["identity"].get("contents")

    def test_a_run_is_not_resumed_on_other_pictures(self, one_run, mini_root, tiny_clip_file, tmp_path):
        data = shutil.copytree(mini_root, tmp_path / "data")
        for picture in (data / "caltech-101" / "101_ObjectCategories").glob("*/train_*.jpg"):
            picture.write_bytes(picture.read_bytes() + b" ")
        words = arguments(data, tiny_clip_file, tmp_path / "out", "CoOp", "--resume", folder_of(one_run[1]))
        process = run_train(*words)
        assert process.returncode == 1
        assert "belongs to a run on other training pictures" in process.stderr, process.stderr

    def test_other_labels_are_refused(self, copied):
        words, _, data = copied
        file = data / "caltech-101" / "split_zhou_Caltech101.json"
        file.write_text(file.read_text().replace('"ant"', '"red ant"'))
        self.refused(words, "other train pictures", "other test pictures")

    def test_another_backbone_under_the_same_path_is_refused(self, copied, tiny_clip_file, tmp_path):
        words, _, _ = copied
        state = golden_state()
        state["logit_scale"] = state["logit_scale"] + 1
        torch.save(state, tmp_path / "clip.pt")
        self.refused([tmp_path / "clip.pt" if w == tiny_clip_file else w for w in words], "backbone was ")

    def test_a_run_that_no_longer_says_what_it_is(self, copied):
        words, out, _ = copied
        (folder_of(out) / "run.json").unlink()
        (folder_of(out) / "results.json").unlink()
        self.refused(words, "run.json is missing")

    @pytest.mark.parametrize("content", ["", '{"accuracy": 1e9}', '{"accuracy": 50, "total": 24, "correct": 3}'])
    def test_results_that_cannot_be(self, copied, content):
        words, out, _ = copied
        (folder_of(out) / "results.json").write_text(content)
        process = protocol(*words)
        assert process.returncode == 2
        assert "results.json is damaged" in process.stderr

    def test_a_missing_picture_is_named(self, copied):
        words, out, data = copied
        shutil.rmtree(out)
        (data / "caltech-101" / "101_ObjectCategories" / "ant" / "test_0.jpg").unlink()
        process = protocol(*words)
        assert process.returncode == 1
        assert 'ant/test_0.jpg (class "ant") is missing' in process.stderr


class TestOwnPictures:
    def test_a_folder_without_yaml_and_with_names(self, literate_clip_file, tmp_path):
        pictures = tmp_path / "my pets"
        rows = [[f"n0{y}/{i}.png", y, ""] for y in range(4) for i in range(6)]
        write_pictures(pictures, {"x": rows})
        (pictures / "classnames.txt").write_text("n00 cat\nn01 red panda\nn02 dog\nn03 okapi\n")
        before = sorted(p for p in pictures.rglob("*"))
        words = ["zsclip", "base2new", pictures, "--cfg", "small", "--output", tmp_path / "out"]
        process = protocol(*words, "MODEL.BACKBONE.NAME", literate_clip_file, "DATALOADER.NUM_WORKERS", "0")
        assert process.returncode == 0, process.stderr
        assert "my_pets" in process.stdout[process.stdout.rindex("Base-to-new") :]
        assert sorted(p for p in pictures.rglob("*")) == before
        (pictures / "classnames.txt").write_text("n00 cat\nn01 red panda\nn02 dog\n")
        process = protocol(*words, "--tag", "b", "MODEL.BACKBONE.NAME", literate_clip_file)
        assert 'has no name for the folder "n03"' in process.stderr

    def test_names_that_the_small_clip_has_never_learned_are_refused_before_anything_starts(self, tmp_path):
        pictures = tmp_path / "textile"
        names = ["global", "local", "nominal"]
        write_pictures(
            pictures, {"x": [[f"{name}/{i}.png", y, name] for y, name in enumerate(names) for i in range(6)]}
        )
        words = ["mocoop", "main", pictures, "2", "--cfg", "small", "--output", tmp_path / "out"]
        process = protocol(*words)
        assert process.returncode == 1
        assert process.stderr.startswith('error: classes "global" and "local" are the same to this backbone')
        assert not (tmp_path / "out").exists()
        process = protocol("linear_probe", *words[1:], "--seeds", "1", "DATALOADER.NUM_WORKERS", "0")  # reads no names
        assert process.returncode == 0, process.stderr

    @pytest.mark.parametrize("words", ["train valid test", "Train Test", "train dev testing", "train", "."])
    def test_parts_by_the_names_that_people_give_them(self, words, tmp_path):
        parts = words.split()
        for part in parts:
            rows = [[f"{part}/{name}/{i}.png", y, name] for y, name in enumerate(["cat", "dog"]) for i in range(3)]
            write_pictures(tmp_path, {"x": rows})
        dataset = own_pictures(tmp_path)
        counts = [len(dataset.train_x), len(dataset.val or []), len(dataset.test)]
        assert counts == ([6, 6 if len(parts) == 3 else 0, 6] if len(parts) > 1 else [4, 0, 2])

    def test_links_that_lead_round(self, tmp_path):
        write_pictures(tmp_path, {"x": [[f"{name}/{i}.png", 0, name] for name in ("cat", "dog") for i in range(4)]})
        (tmp_path / "cat" / "round").symlink_to("..")
        (tmp_path / "dog" / "round").symlink_to("..")
        dataset = own_pictures(tmp_path)
        assert len(dataset.train_x) + len(dataset.val) + len(dataset.test) == 8

    @pytest.mark.parametrize(
        ("paths", "said"),
        [
            (
                "train/cat train/dog extra/cat extra/dog",
                "extra holds folders of pictures, and none of its own: is it",
            ),
            ("ds/train/cat ds/train/dog ds/test/cat ds/test/dog", "holds one class alone, ds"),
            ("cat", "holds one class alone"),
        ],
    )
    def test_parts_are_not_taken_for_classes(self, paths, said, tmp_path):
        for path in paths.split():
            write_pictures(tmp_path, {"x": [[f"{path}/{i}.png", 0, ""] for i in range(4)]})
        with pytest.raises(ValueError, match=said):
            own_pictures(tmp_path)

    def test_a_class_called_train(self, tmp_path):
        write_pictures(tmp_path, {"x": [[f"{name}/{i}.png", 0, name] for name in ("car", "train") for i in range(4)]})
        assert own_pictures(tmp_path).classnames == ["car", "train"]

    def test_test_pictures_that_are_training_pictures_are_said(self, literate_clip_file, tmp_path):
        """Copied, whatever they are called; each half of base-to-new needs two classes."""
        split = {part: [[f"{part}/{name}/{part}{i}.png", y, name] for y, name in enumerate(("cat", "dog", "ant"))
                        for i in range(3)] for part in ("train", "test")}  # fmt: skip
        write_pictures(tmp_path, split)
        shutil.copy(tmp_path / "train" / "cat" / "train1.png", tmp_path / "test" / "cat" / "again.png")
        words = ["--trainer", "ZeroshotCLIP", "--seed", "1", "--backbone", literate_clip_file, "--dataset-config-file",
                 "configs/datasets/folder.yaml", "DATASET.FOLDER", tmp_path, "DATALOADER.NUM_WORKERS", "0"]  # fmt: skip
        done = run_train(*words, "--output-dir", tmp_path / "out")
        assert done.returncode == 0, done.stderr
        assert "Note: 1 of 10 test pictures are training pictures, too, the first is " in done.stdout
        done = run_train(*words, "--output-dir", tmp_path / "base", "DATASET.SUBSAMPLE_CLASSES", "base")
        done = run_train(*words, "--output-dir", tmp_path / "new", "DATASET.SUBSAMPLE_CLASSES", "new")
        assert "of 3 classes 1 would be new: base and new need two each" in done.stderr

    @pytest.mark.parametrize(
        ("folders", "said"),
        [("train val", "has train, val alone"), ("test", "has test alone"), ("train valid val test", "both for val")],
    )
    def test_parts_that_make_no_split(self, folders, said, tmp_path):
        for part in folders.split():
            write_pictures(tmp_path, {"x": [[f"{part}/{name}/0.png", 0, name] for name in ("cat", "dog")]})
        with pytest.raises(ValueError, match=said):
            own_pictures(tmp_path)

    def test_what_lies_among_the_pictures(self, tmp_path, capsys):
        """Deeper folders count; what systems leave does not; all else is counted and named."""
        write_pictures(tmp_path, {"x": [[f"{name}/{i}.png", 0, name] for name in ("cat", "dog") for i in range(4)]})
        write_pictures(
            tmp_path,
            {"x": [["cat/deeper/4.png", 0, "cat"], ["cat/.thumbs/x.png", 0, "cat"], ["__MACOSX/x.png", 0, ""]]},
        )
        for name in ("._0.png", "Thumbs.db", ".DS_Store", "phone.HEIC", "notes.txt", "nosuffix"):
            (tmp_path / "cat" / name).write_bytes(b"x")
        (tmp_path / "cat" / "gone.png").symlink_to("nowhere.png")
        dataset = own_pictures(tmp_path)
        assert dataset.classnames == ["cat", "dog"]
        assert len(dataset.train_x) + len(dataset.val) + len(dataset.test) == 9
        told = capsys.readouterr().out
        assert "Note: 3 files are no pictures of a kind that is read (.heic, .txt, no suffix)" in told
        assert "; 1 links lead nowhere or to folders, and are not followed, the first is" in told
        assert "save HEIC as JPEG" in told


def own_pictures(folder):
    cfg = configure(["configs/datasets/folder.yaml"], [("DATASET.FOLDER", str(folder)), ("TRAINER.NAME", "CoOp")])
    datasets.register_all()
    return build_dataset(cfg)


class TestDraws:
    @pytest.mark.parametrize("harm", ["duplicate", "outside", "empty", "unlike"])
    def test_a_draw_that_was_changed_is_drawn_again(self, copied, harm):
        words, _, data = copied
        (file,) = (data / "caltech-101" / "split_fewshot").glob("shot_4-seed_1.json")
        whole = json.loads(file.read_text())
        changed = copy.deepcopy(whole)
        if harm == "duplicate":
            changed["train"][1] = changed["train"][0]
        elif harm == "outside":
            changed["train"][0] = 10**6
        elif harm == "empty":
            changed = {}
        else:
            changed["train"] = changed["train"][:-1]
        file.write_text(json.dumps(changed))
        process = protocol(*words)
        assert process.returncode == 0, process.stderr
        assert "is finished: skipped" in process.stdout  # the same pictures were drawn again
        assert json.loads(file.read_text()) == whole


class TestSplits:
    @pytest.mark.parametrize(
        ("row", "message"),
        [
            (["b.jpg", 0, "cat"], r'label 0 is called "ant" and "cat"'),
            (["b.jpg", 1, "ant"], r'"ant" has two labels, 0 and 1'),
            (["a.jpg", 0, "ant"], r"stands twice, in train and in test"),
            (["b.jpg", -1, "cat"], r"label -1 of b.jpg is no whole number"),
            (["b.jpg", 0.5, "cat"], r"label 0.5 of b.jpg is no whole number"),
            (["b.jpg", True, "cat"], r"label True of b.jpg is no whole number"),
            (["b.jpg", 1, " "], r"has no class name"),
        ],
    )
    def test_what_contradicts_itself(self, row, message, tmp_path):
        (tmp_path / "s.json").write_text(json.dumps({"train": [["a.jpg", 0, "ant"]], "val": [], "test": [row]}))
        with pytest.raises(ValueError, match=message):
            read_split(str(tmp_path / "s.json"), str(tmp_path))

    def test_a_label_of_a_thousand_million(self, mini_root, tiny_clip_file, tmp_path):
        shutil.copytree(mini_root, tmp_path / "data")
        file = tmp_path / "data" / "caltech-101" / "split_zhou_Caltech101.json"
        split = json.loads(file.read_text())
        split["train"][-1][1:] = [10**9, "far"]
        file.write_text(json.dumps(split))
        fails(run_train(*arguments(tmp_path / "data", tiny_clip_file, tmp_path / "out")), "label 6 (no class) has no")


class TestEvaluating:
    def test_results_say_what_the_model_was_trained_with(self, one_run, mini_root, tiny_clip_file, tmp_path):
        trained = folder_of(one_run[1])
        words = arguments(mini_root, tiny_clip_file, tmp_path / "out", "CoOp", "--eval-only", "--model-dir", trained)
        words[words.index("--seed") + 1], words[words.index("DATASET.NUM_SHOTS") + 1] = 7, 5
        process = run_train(*words, "OPTIM.MAX_EPOCH", 9)
        assert process.returncode == 0, process.stderr
        results = json.loads((tmp_path / "out" / "results.json").read_text())
        assert (results["seed"], results["shots"], results["epochs"]) == (1, 4, 2)
        assert (results["asked"]["seed"], results["asked"]["shots"], results["asked"]["epochs"]) == (7, 5, 9)

    def test_an_unfinished_model_is_recorded_as_such(self, one_run, mini_root, tiny_clip_file, tmp_path):
        trained = shutil.copytree(folder_of(one_run[1]), tmp_path / "trained") / "prompt_learner"
        state = checkpoints.load(trained / "model.pth.tar-2")
        checkpoints.save(trained / "model.pth.tar-1", state | {"epoch": 1})
        words = arguments(
            mini_root, tiny_clip_file, tmp_path / "out", "CoOp", "--eval-only", "--model-dir", trained.parent
        )
        assert run_train(*words).returncode == 0
        results = json.loads((tmp_path / "out" / "results.json").read_text())
        assert (results["epochs"], results["trained"]["epochs_planned"]) == (1, 2)

    def test_a_number_that_is_not_finite_is_never_a_class(self, tiny_clip):
        model = MixtureCLIP(tiny_clip, CLASSES, [["a {}."]]).eval()
        with torch.no_grad():
            model.router.bias[0] = float("nan")
        batch = {"img": torch.randn(2, 3, 32, 32), "label": torch.tensor([0, 1])}
        with (
            pytest.raises(FloatingPointError, match=r'"router.bias" holds numbers that are not finite'),
            torch.no_grad(),
        ):
            evaluate([batch], 1, Logits(model, lambda b: (b["img"], b["label"]), model), _Counter(), lambda: None)

    def test_best_val_without_validation_pictures(self, mini_root, tiny_clip_file, tmp_path):
        shutil.copytree(mini_root, tmp_path / "data")
        file = tmp_path / "data" / "caltech-101" / "split_zhou_Caltech101.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"val": []}))
        words = arguments(tmp_path / "data", tiny_clip_file, tmp_path / "out", "CoOp")
        fails(run_train(*words, "TEST.FINAL_MODEL", "best_val"), "best_val, but Caltech101 has no validation pictures")
        fails(run_train(*words, "TEST.SPLIT", "val"), "TEST.SPLIT is val, but Caltech101 has no validation pictures")


class _Counter:
    def reset(self):
        pass

    def process(self, *batch):
        pass

    def evaluate(self):
        return {}


class TestBackbones:
    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_weights_that_are_not_finite(self, value, tmp_path):
        state = golden_state()
        state["text_projection"][3, 4] = value
        torch.save(state, tmp_path / "clip.pt")
        with pytest.raises(ValueError, match='not finite, first in "text_projection"'):
            load_backbone(str(tmp_path / "clip.pt"))

    def test_a_scripted_file_is_not_opened(self, tmp_path):
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "clip.pt"))
        with pytest.raises(ValueError, match=r"could run code when opened.*torch.jit.load"):
            load_backbone(str(tmp_path / "clip.pt"))

    def test_another_projects_model_is_refused_by_name(self, tiny_clip):
        stranger = torch.nn.Module()  # what has the same parts, but is of another class
        for name, part in tiny_clip.named_children():
            stranger.add_module(name, part)
        stranger.text_projection, stranger.positional_embedding = (
            tiny_clip.text_projection,
            tiny_clip.positional_embedding,
        )
        with pytest.raises(TypeError, match=r"torch.nn.modules.module.Module is no model of OpenAI's clip"):
            MixtureCLIP(stranger, CLASSES, [["a {}."]])
        assert as_backbone(as_backbone(tiny_clip)).model is tiny_clip

    def test_pictures_of_whole_numbers_are_refused(self, tiny_clip):
        model = MixtureCLIP(tiny_clip, CLASSES, [["a {}."]]).eval()
        with pytest.raises(ValueError, match=r"pictures are torch.uint8: scale them"):
            model(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
        with pytest.raises(ValueError, match="takes B x 3 x 32 x 32"):
            model(torch.zeros(1, 3, 40, 40))


KINDS = ["png", "jpg", "gif", "bmp", "tiff", "webp", "avif", "jp2", "ppm", "mpo"]


class TestPictures:
    def test_kinds_of_pixels(self, tmp_path):
        grey = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
        Image.fromarray(grey).save(tmp_path / "deep.png")
        assert np.abs(np.asarray(read_picture(tmp_path / "deep.png", True))[..., 0] - grey / 257).max() <= 0.5
        Image.fromarray(grey.astype(np.int32)).save(tmp_path / "whole.tiff")
        Image.fromarray(grey.astype(np.float32) / 65535).save(tmp_path / "real.tiff")
        for name, kind in (("whole", "mode I"), ("real", "mode F")):
            with pytest.raises(ImageError, match=kind):
                read_picture(tmp_path / f"{name}.tiff", True)
        Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "clear.png")
        assert np.asarray(read_picture(tmp_path / "clear.png", True)).min() == 255
        Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "print.jpg")
        assert read_picture(tmp_path / "print.jpg", True).mode == "RGB"

    @pytest.mark.filterwarnings("ignore:Palette images with Transparency")
    @pytest.mark.parametrize("mode", ["L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "1", "I;16"])
    def test_benchmarks_are_read_as_dassl_reads_them(self, mode, tmp_path):
        noise = Image.effect_noise((16, 12), 90)
        if mode == "I;16":
            picture = Image.fromarray(np.random.default_rng(0).integers(0, 65536, (12, 16)).astype(np.uint16))
        else:
            picture = Image.merge("RGBA", [noise, noise.rotate(180), noise.transpose(0), noise.transpose(1)])
            picture = picture.convert("RGB" if mode == "CMYK" else "RGBA").convert(mode)
        file = tmp_path / ("picture.tiff" if mode in ("CMYK", "PA", "I;16") else "picture.png")
        picture.save(file)
        assert np.array_equal(np.asarray(read_picture(file)), np.asarray(Image.open(file).convert("RGB")))

    def test_whatever_a_damaged_file_makes_pillow_raise(self, tmp_path):
        """Cut, and with bytes changed, of every kind that Pillow writes: an ImageError or a picture, and nothing else."""
        rng, raised = random.Random(0), 0
        small = Image.effect_noise((20, 14), 90).convert("RGB")
        for kind in [
            "png",
            "jpg",
            "gif",
            "bmp",
            "tiff",
            "webp",
            "avif",
            "ico",
            "jp2",
            "ppm",
            "tga",
            "pcx",
            "sgi",
            "dds",
            "qoi",
        ]:
            try:
                small.save(tmp_path / f"whole.{kind}")
            except (KeyError, ValueError, OSError):  # this Pillow does not write it
                continue
            whole = (tmp_path / f"whole.{kind}").read_bytes()
            for _ in range(90):
                content = bytearray(whole[: rng.randrange(len(whole))] if rng.random() < 0.3 else whole)
                for _ in range(rng.randrange(6)):
                    if content:
                        content[rng.randrange(len(content))] = rng.randrange(256)
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        read_picture(io.BytesIO(bytes(content)), upright=rng.random() < 0.5)
                except ImageError:
                    raised += 1
        assert raised > 200

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_every_orientation(self, orientation, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture = Image.merge("RGB", [Image.effect_noise((9, 5), 90)] * 3)
        for kind in ("png", "tiff", "webp"):
            picture.save(tmp_path / f"turned.{kind}", exif=exif, **({"lossless": True} if kind == "webp" else {}))
            expected = ImageOps.exif_transpose(Image.open(tmp_path / f"turned.{kind}"))
            found = read_picture(tmp_path / f"turned.{kind}", upright=True)
            assert np.array_equal(np.asarray(found), np.asarray(expected.convert("RGB"))), kind

    def test_what_is_no_picture_or_none_to_work_with(self, tmp_path):
        Image.new("1", (3_000_000, 1)).save(tmp_path / "strip.png")
        (tmp_path / "program.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n")
        (tmp_path / "empty.png").write_bytes(b"")
        (tmp_path / "folder.png").mkdir()
        for name, said in (("strip", "is a strip of 3000000 x 1"), ("program", "cannot be decoded"), ("empty", "cannot be"),
                           ("folder", "is no file")):  # fmt: skip
            with pytest.raises(ImageError, match=said):
                read_picture(tmp_path / f"{name}.png")

    def test_turned_as_exif_says_only_where_asked(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (8, 4)).save(tmp_path / "turned.jpg", exif=exif)
        assert read_picture(tmp_path / "turned.jpg", upright=True).size == (4, 8)
        assert read_picture(tmp_path / "turned.jpg").size == (8, 4)


class TestIdentity:
    def test_only_what_bears_on_the_result(self):
        one = Identity({"OPTIM.LR": 0.1, "TRAINER.LASP.TEXT_LOSS_OVER": "soft"}, "a", {"test": "x"})
        assert one.differences(Identity.of(one.record())) == []
        assert one.differences(Identity({"OPTIM.LR": 0.1})) == [
            "TRAINER.LASP.TEXT_LOSS_OVER was 'hard', now 'soft'"  # what older runs did
        ]
        assert one.digest() == Identity.of(one.record()).digest()
        assert "other test pictures" in one.differences(Identity(one.settings, "a", {"test": "y"}))

    def test_fingerprints_see_path_label_name_domain_and_size(self, tmp_path):
        from dassl.data.datasets import Datum

        (tmp_path / "a.jpg").write_bytes(b"12")
        (tmp_path / "b.jpg").write_bytes(b"12")
        base = {"impath": str(tmp_path / "a.jpg"), "label": 0, "classname": "ant", "domain": 0}
        seen = {fingerprint([Datum(**base)], str(tmp_path))}
        for change in ({"impath": str(tmp_path / "b.jpg")}, {"label": 1}, {"classname": "x"}, {"domain": 1}):
            seen.add(fingerprint([Datum(**base | change)], str(tmp_path)))
        (tmp_path / "a.jpg").write_bytes(b"123")
        seen.add(fingerprint([Datum(**base)], str(tmp_path)))
        assert len(seen) == 6


class TestCheckpoints:
    @pytest.fixture
    def file(self, one_run, tmp_path):
        folder = shutil.copytree(folder_of(one_run[1]) / "prompt_learner", tmp_path / "run" / "prompt_learner")
        return folder / "model.pth.tar-2"

    @pytest.mark.parametrize(
        "change",
        [
            lambda s: s["optimizer"]["state"][0]["momentum_buffer"].add_(1),
            lambda s: s["optimizer"]["param_groups"][0].update(lr=123.0),
            lambda s: s["random"]["torch"][100:101].bitwise_xor_(1),
            lambda s: s.update(epoch=99),
            lambda s: s["identity"].update(trainer="CoCoOp"),
            lambda s: s.update(config=s["config"].replace("SEED: 1", "SEED: 2")),
            lambda s: s["state_dict"].update(ctx=s["state_dict"]["ctx"].double()),
            lambda s: s.pop("digest"),
        ],
        ids=["momentum", "rate", "generator", "epoch", "identity", "config", "type", "digest"],
    )
    def test_any_other_content_is_refused(self, file, change):
        state = torch.load(file, weights_only=True)
        change(state)
        torch.save(state, file)
        with pytest.raises(ValueError, match="is damaged"):
            checkpoints.load(file)

    @pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", "", ".hidden", "x" * 10**6])
    def test_the_pointer_stays_in_its_folder(self, file, name):
        (file.parent / "checkpoint").write_text(name)
        with pytest.raises(ValueError, match="which is no file beside it"):
            checkpoints.latest(file.parents[1])

    def test_take_over_cut_short_leaves_nothing_begun(self, file, tmp_path):
        target = RunFolder(tmp_path / "target")
        (target.path / ".incoming" / "prompt_learner").mkdir(parents=True)
        shutil.copy(file.parent / "checkpoint", target.path / ".incoming" / "prompt_learner" / "checkpoint")
        with target.held():
            assert not target.begun()
            assert not (target.path / ".incoming").exists()


class TestHostileCheckpoints:
    """Small files that stand for gigabytes, or for more than any training holds."""

    @pytest.mark.parametrize("kind", ["expanded", "nested", "sparse", "older digest on newer content"])
    def test_refused_without_being_unfolded(self, kind, one_run, tmp_path):
        state = checkpoints.load(folder_of(one_run[1]) / "prompt_learner" / "model.pth.tar-2")
        path = tmp_path / "model.pth.tar-2"
        if kind == "expanded":
            state = {"state_dict": {"ctx": torch.zeros(1).expand(2**29)}}
        elif kind == "nested":
            lists = []
            for _ in range(30):
                lists = [lists, lists]
            state["extra"] = lists
        elif kind == "sparse":
            state = {"state_dict": {"ctx": torch.zeros(4).to_sparse()}}
        else:
            del state["digest"]
            state["sha256"] = checkpoints._older_digest_of(state["state_dict"])
            state["epoch"] = 1
        torch.save(state, path)
        with pytest.raises(ValueError, match=r"damaged|no checkpoint"):
            checkpoints.load(path)

    def test_a_pipe_among_the_pictures_is_no_picture(self, tmp_path):
        from test_dassl_interface import config

        from datasets.folder_dataset import FolderDataset

        write_pictures(tmp_path, {"x": [[f"{c}/{i}.png", 0, c] for c in ("cat", "dog") for i in range(4)]}, 8)
        os.mkfifo(tmp_path / "cat" / "pipe.png")
        dataset = FolderDataset(config(tmp_path, NAME="FolderDataset", FOLDER=str(tmp_path)))
        assert not any(item.impath.endswith("pipe.png") for item in dataset.train_x + dataset.val + dataset.test)

    @pytest.mark.slow
    def test_a_draw_of_other_shots_is_not_served(self, copied):
        words, out, data = copied
        draws = data / "caltech-101" / "split_fewshot"
        whole = (draws / "shot_4-seed_1.json").read_text()
        words = ["1" if w == "4" else w for w in words]
        assert protocol(*words).returncode == 0
        shutil.copy(draws / "shot_1-seed_1.json", draws / "shot_4-seed_1.json")
        shutil.rmtree(folder_of(out))
        assert protocol(*["4" if w == "1" and i == 3 else w for i, w in enumerate(words)]).returncode == 0
        assert json.loads((draws / "shot_4-seed_1.json").read_text()) == json.loads(whole)

    def test_what_a_protocol_sets_itself(self, one_run):
        process = protocol(*one_run[0], "SEED", "5")
        assert process.stderr.strip() == "error: SEED is not set here, but by SEEDS"
