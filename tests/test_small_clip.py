"""How the small CLIPs are trained: scripts/train_small_clip.py."""

import json
import random
from collections import Counter

import pytest
import torch
from PIL import Image

from datasets.drawing import world
from harness import small_clip
from trainers.core.clip.backbones import load_backbone


@pytest.mark.parametrize("recipe", small_clip.RECIPES)
def test_a_small_clip_is_trained_and_read(recipe, tmp_path, monkeypatch, capsys):
    """A few steps on a few pictures; the file is a CLIP in OpenAI's layout, of the recipe's size."""
    for name in ("quickdraw", "cifar10"):
        images = tmp_path / name / "images"
        images.mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (28, 28), (60 * i, 0, 0)).save(images / f"{i}.png")
        split = {"pretrain": [[f"{i}.png", i % 2, ("cat", "fire_truck")[i % 2]] for i in range(4)]}
        (tmp_path / name / f"split_{name}.json").write_text(json.dumps(split))
    monkeypatch.setattr(small_clip, "DRAWN", 20)
    out = tmp_path / "clip.pt"
    words = ["--recipe", recipe, "--root", str(tmp_path), "--out", str(out), "--steps", "3", "--batch", "12"]
    monkeypatch.setattr("sys.argv", ["train_small_clip.py", *words])
    assert small_clip.main() == 0
    assert "3 steps in" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.glob("clip.*")) == ["clip.png", "clip.pt"]
    backbone = load_backbone(str(out))
    asked = small_clip.RECIPES[recipe]
    assert (backbone.features, backbone.visual_width) == (asked.features, asked.width)
    with torch.no_grad():
        assert backbone.encode_image(torch.rand(2, 3, 32, 32)).isfinite().all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "10"], "is the recipe's own: give another model another --out"),
        (["--batch", "3", "--out", "x.pt"], "at least one step and four pictures"),
        (["--out", "x.png"], "--out x.png is no name for a .pt file"),
        (["--out", "x.unfinished"], "--out x.unfinished is no name for a .pt file"),
    ],
)
def test_what_is_refused_before_anything_is_drawn(words, message, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train_small_clip.py", *words])
    with pytest.raises(SystemExit, match=message):
        small_clip.main()


@pytest.mark.parametrize("size", [4, 5, 7, 16, 256])
def test_a_batch_has_as_many_pictures_as_asked(size):
    shares = {
        name: small_clip.Source(
            torch.zeros(3, 3, 8, 8, dtype=torch.uint8), ["cat"] * 3, lambda i, rng: "cat", True, False
        )
        for name in small_clip.SHARES
    }
    images, captions = small_clip.batch_of(shares, size, random.Random(0))
    assert len(images) == len(captions) == size


def test_a_class_is_spoken_of_in_wordings_of_its_own():
    rng = random.Random(0)
    said = {
        name: Counter(world.caption(rng, "X", "clean", spoken_of=name) for _ in range(2000)) for name in ("cat", "cup")
    }
    first = {name: counts.most_common(1)[0] for name, counts in said.items()}
    assert first["cat"][0] != first["cup"][0]
    assert all(count > 300 for _, count in first.values())
    assert set(said["cat"]) == set(said["cup"]) == {frame.format("X") for frame in world.FRAMES}
