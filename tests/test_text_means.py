"""The head whose class means are predicted from text (trainers/core/heads/text_means.py), and what its use refuses."""

import json

import pytest
import torch
from conftest import run_train, write_pictures
from dassl.data.datasets import DATASET_REGISTRY
from test_runs import arguments
from torch.nn import functional as F

from datasets.caltech101 import Caltech101
from trainers.coop.trainer import CoOp
from trainers.core.heads import text_means
from trainers.core.heads.text_means import TextMeansHead, class_means, linear_classifier, precision, statistics
from trainers.core.inference.model import load_run
from trainers.core.runs.identity import Identity
from trainers.core.settings.configure import configure
from trainers.methods import register_all
from trainers.zsclip.model import HardPromptCLIP

D, S = 12, 5
HEAD = ("MODEL.HEAD.NAME", "text_means")
HALF = ("TRAINER.NORMTUNING.PREC", "bf16", "CACHE.LIMIT_MB", 0)


@pytest.fixture
def drawn():
    """Text features of eight names, and unit features of four pictures of each of the first five; float64."""
    g = torch.Generator().manual_seed(0)
    text = F.normalize(torch.randn(8, D, generator=g, dtype=torch.float64), dim=-1)
    labels = torch.arange(S).repeat(4)
    features = text[labels] @ torch.randn(D, D, generator=g, dtype=torch.float64)
    return (
        text,
        F.normalize(features + 0.5 * torch.randn(len(labels), D, generator=g, dtype=torch.float64), dim=-1),
        labels,
    )


def test_means_are_those_of_a_gaussian_process(drawn):
    """Each class's mean is a sum of what text says and of its own; its pictures are noisy looks at it."""
    text, features, labels = drawn
    known = statistics(features, labels, S)
    asked = torch.tensor([2, 6, 0])  # two seen classes and one that is not
    found, m = class_means(known, text[:S], text[asked], torch.tensor([2, -1, 0]))
    names = torch.cat([text[:S], text[6:7]]).mean(0)
    a = text - names
    x = torch.stack([features[labels == c].mean(0) for c in range(S)])
    torch.testing.assert_close(m, x.mean(0))
    covariance = a[:S] @ a[:S].T / text_means.RIDGE + text_means.OWN * torch.eye(S, dtype=a.dtype)
    for row, c in ((0, 2), (2, 0)):
        weights = torch.linalg.solve(covariance + torch.eye(S, dtype=a.dtype) / 4, covariance[:, c])
        torch.testing.assert_close(found[row], m + weights @ (x - m))
    ridge = torch.linalg.solve(a[:S] @ a[:S].T + torch.eye(S, dtype=a.dtype), a[:S] @ a[6])
    torch.testing.assert_close(found[1], m + ridge @ (x - m))


def test_logits_are_differences_of_gaussian_log_densities(drawn):
    text, features, labels = drawn
    known = statistics(features, labels, S)
    mean, m = class_means(known, text[:S], text[:S], torch.arange(S))
    inverse = precision(known)
    scatter = sum(
        torch.outer(f - known.mean_SD[y], f - known.mean_SD[y]) for f, y in zip(features, labels, strict=True)
    )
    nu, trace = 20 - S, float(scatter.trace()) / (20 - S)
    shrunk = (scatter + 0.3 * trace * torch.eye(D, dtype=text.dtype)) / (nu + 0.3 * D)
    torch.testing.assert_close(torch.linalg.inv(inverse), shrunk)
    weight, bias = linear_classifier(mean, m, inverse)
    density = [torch.distributions.MultivariateNormal(mu, shrunk).log_prob(features) for mu in [*mean, m]]
    torch.testing.assert_close(features @ weight.T + bias, torch.stack(density[:-1], 1) - density[-1][:, None])


def test_one_picture_of_each_class_leaves_nothing_to_choose_on(drawn):
    text, features, labels = drawn
    head = TextMeansHead(text[:S], text[:S], torch.arange(S))
    scale = torch.tensor(20.0, dtype=text.dtype)
    assert not head.fitted
    assert head.fit(features[:S], labels[:S], scale) is None
    assert head.fitted
    assert float(head.weight) == text_means.ONE_SHOT_WEIGHT
    assert all(part.isfinite().all() for part in head.classifier(scale))


def test_the_weight_is_the_first_of_the_best_on_pictures_that_the_head_has_not_seen(drawn):
    text, features, labels = drawn
    head = TextMeansHead(text[:S], text[:S], torch.arange(S))
    scale = torch.tensor(20.0, dtype=text.dtype)
    share, count = head.fit(features, labels, scale)
    assert count == 20
    weight = float(head.weight)
    torch.testing.assert_close(head.mean_SD, statistics(features, labels, S).mean_SD)
    right = dict.fromkeys(text_means.WEIGHTS, 0)
    for part in range(4):  # picture c + 5 k is the k-th of class c
        kept, held = torch.arange(20) // S != part, torch.arange(20) // S == part
        head._take(features[kept], labels[kept], 1.0)
        more = F.linear(features[held], *head.classifier(scale))
        for w in right:
            right[w] += int(((scale * features[held] @ text[:S].T + w * more).argmax(1) == labels[held]).sum())
    assert share == max(right.values()) / 20
    assert weight == pytest.approx(next(w for w in right if right[w] == max(right.values())))


def test_many_pictures_are_taken_a_part_at_a_time(drawn, monkeypatch):
    text, features, labels = drawn
    scale, heads = torch.tensor(20.0, dtype=text.dtype), []
    for at_a_time in (text_means.AT_A_TIME, 7):
        monkeypatch.setattr(text_means, "AT_A_TIME", at_a_time)
        heads.append(TextMeansHead(text[:S], text[:S], torch.arange(S)))
        heads[-1].found = heads[-1].fit(features, labels, scale)
    assert heads[0].found == heads[1].found
    for name, tensor in heads[0].state_dict().items():
        torch.testing.assert_close(tensor, heads[1].state_dict()[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("labels", [[0, 0, 1], [0, 0, 1, 1], [0, 1]])
def test_pictures_that_are_all_copies_make_a_head(labels, drawn):
    text, features, _ = drawn
    head = TextMeansHead(text[:2], text[:2], torch.arange(2))
    labels = torch.tensor(labels)
    head.fit(features[torch.zeros_like(labels)] if len(labels) == 2 else features[labels], labels, torch.tensor(20.0))
    assert all(part.isfinite().all() for part in head.classifier(torch.tensor(20.0)))


def test_half_precision_around_a_head_changes_nothing_in_it(drawn):
    text, features, labels = drawn
    head = TextMeansHead(text[:S].float(), text[:S].float(), torch.arange(S))
    scale = torch.tensor(20.0)
    head.fit(features.float(), labels, scale)
    exact = head.classifier(scale)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for part, expected in zip(head.classifier(scale), exact, strict=True):
            assert torch.equal(part, expected)


@pytest.fixture(scope="module")
def base(mini_root, tiny_clip_file, tmp_path_factory):
    """A run on base classes with a head."""
    out = tmp_path_factory.mktemp("base")
    done = run_train(*arguments(mini_root, tiny_clip_file, out, "CoOp", *HEAD, "DATASET.SUBSAMPLE_CLASSES", "base"))
    assert done.returncode == 0, done.stderr
    assert "Head fitted to 12 pictures, weight " in done.stdout
    return out


def evaluated(base, mini_root, tiny_clip_file, out, *words):
    given = arguments(mini_root, tiny_clip_file, out, "CoOp", "--model-dir", base, "--eval-only", *words)
    return run_train(*given)


@pytest.mark.parametrize("classes", ["new", "joint"])
def test_a_head_of_base_classes_is_asked_for_others(classes, base, mini_root, tiny_clip_file, tmp_path):
    done = evaluated(base, mini_root, tiny_clip_file, tmp_path, *HEAD, "DATASET.SUBSAMPLE_CLASSES", classes)
    assert done.returncode == 0, done.stderr
    assert "left out" not in done.stdout
    assert "Head fitted" not in done.stdout  # not to the pictures of the classes that are asked


def test_a_head_can_be_left_out_and_is_not_made_up(base, mini_root, tiny_clip_file, tmp_path):
    done = evaluated(base, mini_root, tiny_clip_file, tmp_path / "without", "DATASET.SUBSAMPLE_CLASSES", "base")
    assert done.returncode == 0, done.stderr
    assert "Note: the model's head is left out: MODEL.HEAD.NAME is none" in done.stdout
    out = tmp_path / "plain"
    done = run_train(*arguments(mini_root, tiny_clip_file, out, "CoOp", "DATASET.SUBSAMPLE_CLASSES", "base"))
    plain = json.loads((out / "results.json").read_text())
    assert json.loads((tmp_path / "without" / "results.json").read_text())["accuracy"] == plain["accuracy"]
    done = evaluated(out, mini_root, tiny_clip_file, tmp_path / "asked", *HEAD, "DATASET.SUBSAMPLE_CLASSES", "new")
    assert done.returncode == 1
    assert "has no head: train with MODEL.HEAD.NAME text_means" in done.stderr


@pytest.mark.parametrize(
    ("trainer", "more", "said"),
    [
        ("TipAdapter", (), "MODEL.HEAD.NAME is text_means, and Tip-Adapter can have none: leave it out"),
        (
            "CoOp",
            ("TEST.FINAL_MODEL", "best_val"),
            "the head text_means is fitted to the last epoch's model: use TEST.",
        ),
        (
            "TipAdapterF",
            ("MODEL.HEAD.NAME", "none", "TEST.FINAL_MODEL", "best_val"),
            "beta and alpha are chosen for the last epoch's keys: use last_step",
        ),
    ],
)
def test_where_no_head_can_be(trainer, more, said, mini_root, tiny_clip_file, tmp_path):
    done = run_train(*arguments(mini_root, tiny_clip_file, tmp_path, trainer, *HEAD, *more))
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.fixture(scope="module")
def halved(mini_root, tiny_clip_file, tmp_path_factory):
    """LayerNorms trained on base classes in half precision, with every epoch's model, and no cache of texts."""
    out = tmp_path_factory.mktemp("halved")
    words = arguments(mini_root, tiny_clip_file, out, "NormTuning", *HALF, "TRAIN.CHECKPOINT_FREQ", 1)
    done = run_train(*words, "DATASET.SUBSAMPLE_CLASSES", "base")
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize("classes", ["base", "new"])
def test_half_precision_asks_a_head_for_other_classes(classes, halved, mini_root, tiny_clip_file, tmp_path):
    words = arguments(mini_root, tiny_clip_file, tmp_path, "NormTuning", *HALF, "--model-dir", halved, "--eval-only")
    done = run_train(*words, "DATASET.SUBSAMPLE_CLASSES", classes)
    assert done.returncode == 0, done.stderr
    found, trained = (json.loads((folder / "results.json").read_text()) for folder in (tmp_path, halved))
    assert classes == "new" or found["accuracy"] == trained["accuracy"]


def test_an_earlier_epoch_has_no_head_and_says_so(halved, mini_root, tiny_clip_file, tmp_path):
    words = arguments(mini_root, tiny_clip_file, tmp_path, "NormTuning", *HALF, "--model-dir", halved, "--eval-only")
    done = run_train(*words, "DATASET.SUBSAMPLE_CLASSES", "base", "--load-epoch", 1)
    assert done.returncode == 1
    assert "this epoch's model has no head yet" in done.stderr
    with pytest.raises(ValueError, match="this epoch's model has no head yet"):
        load_run(halved, backbone=tiny_clip_file, epoch=1)
    assert load_run(halved, backbone=tiny_clip_file).model.head.fitted


def test_classes_that_share_a_name_keep_their_own_pictures(tiny_clip):
    model = HardPromptCLIP(tiny_clip, ["missile", "cat", "missile"], ["a photo of a {}."])
    model.put_head(
        [["a photo of a {}."]], ["missile", "cat", "missile"], ["missile", "dog", "missile", "missile", "cat"]
    )
    assert model.head.seen_C.tolist() == [0, -1, 2, -1, 1]
    assert model.head.text_SD.shape[0] == 3


@pytest.mark.parametrize(("classes", "kept"), [(["cat", "dog"], False), (["cat", "dog", "owl", "fox"], True)])
def test_a_head_stays_with_folders_that_have_its_classes(classes, kept, literate_clip_file, tmp_path):
    trained, asked = tmp_path / "trained", tmp_path / "asked"
    for folder, names in ((trained, ["cat", "dog", "owl"]), (asked, classes)):
        write_pictures(folder, {"all": [(f"{name}/{i}.png", 0, name) for name in names for i in range(8)]})
    given = ["--seed", 1, "--trainer", "CoOp", "--config-file", "configs/trainers/CoOp/small.yaml", "--backbone",
             literate_clip_file, "--dataset-config-file", "configs/datasets/folder.yaml"]  # fmt: skip
    more = [*HEAD, "OPTIM.MAX_EPOCH", 1, "DATASET.NUM_SHOTS", 2, "DATALOADER.NUM_WORKERS", 0]
    done = run_train(*given, "--output-dir", tmp_path / "run", *more, "DATASET.FOLDER", trained)
    assert done.returncode == 0, done.stderr
    at = ["--output-dir", tmp_path / "other", "--eval-only", "--model-dir", tmp_path / "run"]
    done = run_train(*given, *at, *HEAD, "DATASET.NUM_SHOTS", 2, "DATALOADER.NUM_WORKERS", 0, "DATASET.FOLDER", asked)
    assert done.returncode == 0, done.stderr
    assert ("left out: it was fitted to another dataset" in done.stdout) != kept


def test_the_heads_templates_are_part_of_a_run():
    ours, theirs = Identity(head=[["a {}."]]), Identity(head=[["the {}."]])
    assert ours.differences(theirs) == ["other templates of the head"]
    assert ours.differences(Identity()) == []  # an older version's, which did not say


def test_a_dataset_without_groups_of_templates_needs_them_for_a_head_alone(mini_root, tiny_clip_file):
    register_all()

    @DATASET_REGISTRY.register()
    class Nameless(Caltech101):
        """One that no file of templates knows."""

    given = {"DATASET.NAME": "Nameless", "DATASET.ROOT": mini_root, "TRAINER.NAME": "CoOp", "SEED": 1,
             "MODEL.BACKBONE.NAME": tiny_clip_file, "DATASET.TEMPLATE": "a {}."}  # fmt: skip
    settings = [(key, str(value)) for key, value in given.items()]
    assert CoOp.run_identity(configure([], settings)).head is None
    with pytest.raises(ValueError, match="has no templates for dataset Nameless"):
        CoOp.run_identity(configure([], [*settings, HEAD]))
