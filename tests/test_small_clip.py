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


def test_a_class_is_spoken_of_in_wordings_of_its_own():
    rng = random.Random(0)
    said = {
        name: Counter(world.caption(rng, "X", "clean", spoken_of=name) for _ in range(2000)) for name in ("cat", "cup")
    }
    first = {name: counts.most_common(1)[0] for name, counts in said.items()}
    assert first["cat"][0] != first["cup"][0]
    assert all(count > 300 for _, count in first.values())
    assert set(said["cat"]) == set(said["cup"]) == {frame.format("X") for frame in world.FRAMES}
