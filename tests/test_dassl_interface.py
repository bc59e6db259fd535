"""compat/dassl draws, schedules and logs what Dassl does (golden values from upstream)."""

import json
import random
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import DATA, write_pictures
from dassl.config import get_cfg_default
from dassl.data.transforms.randaugment import RandAugment
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import AverageMeter, MetricMeter, check_availability, load_checkpoint, save_checkpoint, set_random_seed
from PIL import Image

import datasets
from trainers.core.settings.configure import add_shared

datasets.register_all()
FEWSHOT = json.loads((DATA / "fewshot.json").read_text())


def config(root: Path, **dataset: object):
    cfg = get_cfg_default()
    add_shared(cfg)
    cfg.DATASET.ROOT = str(root)
    cfg.DATASET.NAME = "Caltech101"
    for key, value in dataset.items():
        setattr(cfg.DATASET, key, value)
    return cfg


@pytest.fixture(scope="module")
def golden_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("golden")
    folder = root / "caltech-101"
    write_pictures(folder / "101_ObjectCategories", {}, 8)
    (folder / "101_ObjectCategories").mkdir(parents=True, exist_ok=True)
    (folder / "split_zhou_Caltech101.json").write_text(json.dumps(FEWSHOT["split"]))
    return root


@pytest.mark.parametrize("draw", FEWSHOT["draws"], ids=lambda d: f"{d['subsample']}-seed{d['seed']}-{d['shots']}shots")
def test_few_shot_draws_are_upstreams(golden_root, draw):
    cfg = config(golden_root, NUM_SHOTS=draw["shots"], SUBSAMPLE_CLASSES=draw["subsample"])
    cfg.SEED = draw["seed"]
    for before in (cfg.SEED, 12345):  # the draw is the seed's, whatever was drawn before
        set_random_seed(before)
        dataset = datasets.caltech101.Caltech101(cfg)
        for items, part in ((dataset.train_x, "train"), (dataset.val, "val")):
            got = [(str(Path(x.impath).relative_to(dataset.image_dir)), x.label) for x in items]
            assert got == [tuple(x) for x in draw[part]]
        assert len(dataset.test) == draw["n_test"]
        assert dataset.classnames == draw["classnames"]
        assert dataset.num_classes == draw["num_classes"]


@pytest.mark.parametrize(
    "run", json.loads((DATA / "lr.json").read_text())["runs"], ids=lambda r: f"{r['lr_scheduler']}-{r['max_epoch']}"
)
def test_learning_rates_are_upstreams(run):
    c = get_cfg_default().OPTIM
    c.NAME, c.LR, c.MAX_EPOCH, c.WARMUP_EPOCH = "sgd", run["lr"], run["max_epoch"], run["warmup_epoch"]
    c.WARMUP_TYPE, c.LR_SCHEDULER, c.STEPSIZE = run["warmup_type"], run["lr_scheduler"], run["stepsize"]
    slow, fast = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimiser = build_optimizer(None, c, [{"params": [slow], "lr": run["group_lr"][0]}, {"params": [fast]}])
    schedule = build_lr_scheduler(optimiser, c)
    seen = []
    for epoch in range(run["max_epoch"]):
        seen.append([g["lr"] for g in optimiser.param_groups])
        optimiser.step()
        schedule.step()
        if epoch == run["max_epoch"] // 2:  # an interruption: the state goes through a checkpoint into new objects
            state = schedule.state_dict(), optimiser.state_dict()
            optimiser = build_optimizer(None, c, [{"params": [slow], "lr": run["group_lr"][0]}, {"params": [fast]}])
            schedule = build_lr_scheduler(optimiser, c)
            schedule.load_state_dict(state[0])
            optimiser.load_state_dict(state[1])
    seen.append([g["lr"] for g in optimiser.param_groups])
    assert seen == run["lr_at_epoch_start"]


def test_seeding_reaches_every_generator():
    def draw():
        set_random_seed(3)
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    assert draw() == draw()


def test_meters():
    meter = AverageMeter()
    for value in (1.0, 2.0, 6.0):
        meter.update(value)
    assert (meter.val, meter.avg, meter.count) == (6.0, 3.0, 3)
    meters = MetricMeter()
    meters.update({"loss": torch.tensor(0.5), "acc": 50})
    meters.update({"loss": 1.5, "acc": 100})
    assert str(meters) == "loss 1.5000 (1.0000) acc 100.0000 (75.0000)"
    with pytest.raises(TypeError):
        meters.update([1])


def test_the_nearest_name_is_offered():
    with pytest.raises(ValueError, match='did you mean "OxfordPets"'):
        check_availability("OxfordPet", ["OxfordPets", "OxfordFlowers"])


def test_checkpoints_have_dassls_layout(tmp_path):
    save_checkpoint({"state_dict": {"module.ctx": torch.ones(2)}, "epoch": 5}, str(tmp_path / "prompt_learner"))
    assert (tmp_path / "prompt_learner" / "checkpoint").read_text() == "model.pth.tar-5\n"
    assert load_checkpoint(str(tmp_path / "prompt_learner" / "model.pth.tar-5"))["state_dict"].keys() == {"ctx"}


def test_randaugment_draws_and_does_what_upstreams_does():
    """Sixty-four seeds, two of its sixteen operations each; the checksum is of what Dassl's makes of them."""
    augment = RandAugment(2, 10)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 48, 3)).astype(np.uint8))
    sums = []
    for seed in range(64):
        random.seed(seed)
        np.random.seed(seed)
        sums.append(zlib.crc32(np.asarray(augment(picture)).tobytes()))
    assert zlib.crc32(np.array(sums, dtype=np.uint32).tobytes()) == 1917223287
