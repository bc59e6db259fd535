"""Groups of templates made by text features, and their controls."""

import random

import forked
import pytest
import torch
import yaml
from conftest import ROOT

from harness.group_templates import CONTROLS, control, coordinates, grouped, random_words, read_templates, usable
from trainers.core.clip.backbones import load_backbone
from trainers.core.clip.hard_features import hard_features
from trainers.core.clip.text_tower import TextEncoder
from trainers.core.settings.configure import configure

NAMES = ["ant", "bass", "air_plane"]
PLANTED = [["a photo of a {}.", "a photo of the {}."], ["a dark {}.", "the dark {}."], ["many {} in the sea."]]


@pytest.fixture(scope="module")
def backbone(literate_clip_file):
    return load_backbone(str(literate_clip_file))


def test_lists_are_read_as_they_come(tmp_path):
    (tmp_path / "flat.txt").write_text("# mine\n a photo of a {}.\n\na {}.\n")
    (tmp_path / "grouped.yaml").write_text(yaml.safe_dump([["a photo of a {}."], ["a {}."]]))
    assert read_templates(str(tmp_path / "flat.txt")) == read_templates(str(tmp_path / "grouped.yaml"))
    assert len(set(read_templates("clip80"))) == 80
    assert len(read_templates("lasp")) == 35
    with pytest.raises(ValueError, match='no list of templates "clip8"; did you mean "clip80"'):
        read_templates("clip8")
    (tmp_path / "other.yaml").write_text("a: [1]")
    with pytest.raises(ValueError, match="is no list of templates: expected lines like"):
        read_templates(str(tmp_path / "other.yaml"))


def test_what_cannot_be_used_is_named(backbone, tiny_clip_file):
    long = "word " * 80 + "{}."
    kept, faults = usable(["a {}.", "a photo.", "{} {}", "a {}.", long, "A {}."], NAMES, backbone)
    assert kept == ["a {}."]
    assert faults["a photo."] == "has 0 places {} for the class name"
    assert faults["{} {}"] == "has 2 places {} for the class name"
    assert faults["a {}."] == "stands twice"
    assert "has 84 tokens, but CLIP reads at most 77" in faults[long]
    assert faults["A {}."] == 'is the same to this CLIP as "a {}."'
    unread = load_backbone(str(tiny_clip_file))  # whose embeddings are zero but for a few words
    kept, faults = usable(["a yoghurt {}.", "a synthesizer {}."], NAMES, unread)
    assert (kept, list(faults)) == (["a yoghurt {}."], ["a synthesizer {}."])


def test_distances_are_those_of_the_features(backbone):
    templates = [template for group in PLANTED for template in group]
    points_TT = coordinates(templates, NAMES, backbone)
    hard_TCD = hard_features(TextEncoder(backbone), templates, NAMES, backbone.vocabulary).double()
    expected_TT = (hard_TCD[:, None] - hard_TCD[None]).square().sum(-1).mean(-1).sqrt()
    torch.testing.assert_close(torch.cdist(points_TT, points_TT), expected_TT, rtol=1e-5, atol=1e-6)


def test_planted_groups_are_found():
    centres_GK = torch.tensor([[10.0, 0, 0], [0, 10, 0], [0, 0, 10]]).double()
    names = ["a {}", "b {}", "c {}", "d {}", "e {}", "f {}", "g {}"]
    near_T = torch.tensor([0, 1, 0, 2, 1, 0, 2])
    offsets_T = torch.tensor([3.0, 0, 0.5, 0, 1, 0.2, 1]).double()
    found = grouped(names, centres_GK[near_T] + offsets_T[:, None] * 0.1, None, seed=1)
    assert max(found.tried, key=lambda k: found.tried[k]) == 3
    assert [set(group) for group in found.templates] == [{"a {}", "c {}", "f {}"}, {"b {}", "e {}"}, {"d {}", "g {}"}]
    assert found.templates[0] == ["c {}", "f {}", "a {}"]  # from the group's middle outwards
    assert max(found.tried.values()) > 0.9
    assert [len(group) for group in grouped(names, centres_GK[near_T], 1, 1).templates] == [7]
    with pytest.raises(ValueError, match="--groups is 8: use 1 to 7"):
        grouped(names, centres_GK[near_T], 8, 1)
    with pytest.raises(ValueError, match="2 usable templates are too few"):
        grouped(names[:2], torch.eye(2).double(), None, 1)


def test_controls(backbone):
    flat = [template for group in PLANTED for template in group]
    made = {kind: control(kind, PLANTED, backbone, 1) for kind in CONTROLS}
    assert made["one"] == [flat]
    assert made["each"] == [[template] for template in flat]
    assert [len(group) for group in made["random"]] == [len(group) for group in made["words"]] == [2, 2, 1]
    assert sorted(t for group in made["random"] for t in group) == sorted(flat)
    assert control("random", PLANTED, backbone, 1) == made["random"]
    assert any(control("random", PLANTED, backbone, seed) != made["random"] for seed in (2, 3))
    words = [template for group in made["words"] for template in group]
    assert len(set(words)) == 5
    assert usable(words, NAMES, backbone)[0] == words


def test_random_words_are_those_that_the_model_reads(tiny_clip_file):
    known = load_backbone(str(tiny_clip_file))
    for template in random_words(10, known, random.Random(1)):
        assert not known.unread(template.split("which has ")[1].rstrip("."))


def test_program_and_its_file(mini_root, literate_clip_file, tmp_path):
    program, pictures = ROOT / "scripts" / "group_templates.py", mini_root / "caltech-101" / "101_ObjectCategories"
    words = ["lasp", pictures, "--backbone", literate_clip_file]
    done = forked.run(program, *words, "--out", tmp_path / "groups.yaml", "--draw", tmp_path / "groups.png")
    assert done.returncode == 0, done.stderr
    assert 'left out: "a bad photo of the {}." stands twice' in done.stdout
    assert "34 of 35 templates, filled with 6 class names" in done.stdout
    groups = yaml.safe_load((tmp_path / "groups.yaml").read_text())
    assert sorted(t for group in groups for t in group) == sorted(set(read_templates("lasp")))
    assert (tmp_path / "groups.png").read_bytes().startswith(b"\x89PNG")
    for key in ("DATASET.TEMPLATE_GROUPS", "TRAINER.MOCOOP.TEMPLATE_GROUPS"):
        cfg = configure([], [(key, str(tmp_path / "groups.yaml"))])
        assert groups == (cfg.DATASET if "DATASET" in key else cfg.TRAINER.MOCOOP).TEMPLATE_GROUPS
    for wrong, said in (
        (["lasp", pictures, "--out", tmp_path / "groups.txt"], "name a .yaml, .yml file"),
        (["lasp", "/nowhere"], "is no dataset"),
        ([*words, "--groups", 99], "--groups is 99: use 1 to 34"),
        ([tmp_path / "groups.yaml", pictures, "--out", tmp_path / "groups.yaml"], "would be overwritten"),
    ):
        done = forked.run(program, *wrong)
        assert done.returncode == 2, wrong
        assert said in done.stderr


def test_a_list_in_a_file_that_is_none(tmp_path):
    (tmp_path / "words.yaml").write_text("['a photo of a {}.']")
    (tmp_path / "node.yaml").write_text("a: b")
    for file, said in (("words.yaml", "TEMPLATE_GROUPS is .*: use lists of words"), ("node.yaml", "holds dict, not a list"),
                       ("none.yaml", "no config file")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            configure([], [("DATASET.TEMPLATE_GROUPS", str(tmp_path / file))])
