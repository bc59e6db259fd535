"""A trainer and a dataset in CoOp's manner, knowing nothing of this project, on Dassl's interface as compat/ offers it."""

import json
import os
import re
import sys

import pytest
import torch
from conftest import golden_state, write_pictures
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.engine import TRAINER_REGISTRY, TrainerX, build_trainer
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import (
    check_isfile,
    collect_env_info,
    listdir_nohidden,
    load_checkpoint,
    load_pretrained_weights,
    mkdir_if_missing,
    read_json,
    set_random_seed,
    setup_logger,
    write_json,
)
from torch import nn
from torch.nn import functional as F

from trainers.core.clip.backbones.openai import build_model

COLOURS = ["first", "second", "third"]


@DATASET_REGISTRY.register()
class ColouredFolders(DatasetBase):
    def __init__(self, cfg):
        root = os.path.join(cfg.DATASET.ROOT, "coloured")
        assert check_isfile(os.path.join(root, "split.json"))
        names = read_json(os.path.join(root, "split.json"))["classes"]
        items = [
            Datum(impath=os.path.join(root, "images", name, file), label=label, classname=name)
            for label, name in enumerate(names)
            for file in sorted(listdir_nohidden(os.path.join(root, "images", name)))
        ]
        train = self.generate_fewshot_dataset(items, num_shots=cfg.DATASET.NUM_SHOTS)
        super().__init__(train_x=train, val=items, test=items)


class Head(nn.Module):
    def __init__(self, features, classes):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(classes, features))

    def forward(self, features):
        return features @ self.weight.t()


@TRAINER_REGISTRY.register()
class HeadOnCLIP(TrainerX):
    def build_model(self):
        self.clip_model = build_model(golden_state()).float().to(self.device)
        self.model = Head(self.clip_model.visual.output_dim, self.num_classes).to(self.device)
        if self.cfg.MODEL.INIT_WEIGHTS:
            load_pretrained_weights(self.model, self.cfg.MODEL.INIT_WEIGHTS)
        self.optim = build_optimizer(self.model, self.cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
        self.register_model("head", self.model, self.optim, self.sched)

    def logits(self, images):
        with torch.no_grad():
            features = F.normalize(self.clip_model.encode_image(images), dim=-1)
        return 20 * self.model(features)

    def forward_backward(self, batch):
        images, labels, _ = self.parse_batch_train(batch)
        output = self.logits(images)
        loss = F.cross_entropy(output, labels)
        self.model_backward_and_update(loss)
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return {"loss": loss.item(), "acc": compute_accuracy(output, labels)[0].item()}

    def model_inference(self, input):
        return self.logits(input)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("foreign")
    split = {"train": [[f"{c}/{i}.png", y, c] for y, c in enumerate(COLOURS) for i in range(6)]}
    write_pictures(root / "coloured" / "images", split)
    mkdir_if_missing(str(root / "coloured"))
    names = listdir_nohidden(str(root / "coloured" / "images"), sort=True)
    write_json({"classes": names}, str(root / "coloured" / "split.json"))
    return root


def configured(root, out, epochs, **settings):
    cfg = get_cfg_default()
    cfg.DATASET.ROOT, cfg.DATASET.NAME, cfg.DATASET.NUM_SHOTS = str(root), "ColouredFolders", 4
    cfg.INPUT.SIZE, cfg.INPUT.TRANSFORMS = (32, 32), ("random_flip", "normalize")
    cfg.DATALOADER.TRAIN_X.BATCH_SIZE, cfg.DATALOADER.NUM_WORKERS = 6, 0
    cfg.OPTIM.NAME, cfg.OPTIM.LR, cfg.OPTIM.MAX_EPOCH, cfg.OPTIM.LR_SCHEDULER = "sgd", 0.5, epochs, "cosine"
    cfg.TRAIN.PRINT_FREQ, cfg.TRAIN.CHECKPOINT_FREQ = 1, 1
    cfg.TRAINER.NAME, cfg.OUTPUT_DIR, cfg.TEST.FINAL_MODEL = "HeadOnCLIP", str(out), "best_val"
    for key, value in settings.items():
        cfg.merge_from_list([key.replace("__", "."), value])
    return cfg


def trained(cfg):
    set_random_seed(1)
    trainer = build_trainer(cfg)
    trainer.train()
    return trainer


def test_it_trains_resumes_and_evaluates(root, tmp_path, capsys):
    whole = trained(configured(root, tmp_path / "whole", 4))
    log = capsys.readouterr().out
    assert len(re.findall(r"^epoch \[\d/4\] batch \[\d/2\] time .* loss .* acc .* lr .* eta ", log, re.MULTILINE)) == 8
    assert "Deploy the model with the best val performance" in log
    assert float(re.findall(r"\* accuracy: (\S+)%", log)[-1]) > 60  # three classes
    folder = tmp_path / "whole" / "head"
    state = load_checkpoint(str(folder / "model.pth.tar-2"))
    assert state["epoch"] == 2
    (tmp_path / "half" / "head").mkdir(parents=True)
    (tmp_path / "half" / "head" / "model.pth.tar-2").write_bytes((folder / "model.pth.tar-2").read_bytes())
    (tmp_path / "half" / "head" / "checkpoint").write_text("model.pth.tar-2\n")
    resumed = trained(configured(root, tmp_path / "half", 4))
    assert "will resume training" in capsys.readouterr().out
    assert [group["lr"] for group in resumed.optim.param_groups] == [g["lr"] for g in whole.optim.param_groups]
    cfg = configured(root, tmp_path / "warm", 1, MODEL__INIT_WEIGHTS=str(folder / "model.pth.tar-4"))
    warm = build_trainer(cfg)
    assert torch.equal(warm.model.weight, load_checkpoint(str(folder / "model.pth.tar-4"))["state_dict"]["weight"])
    warm.load_model(str(tmp_path / "whole"), epoch=1)
    assert warm.test() == pytest.approx(warm.test("val"))


def test_logs_of_starts_within_a_second_are_all_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    for number in range(4):
        setup_logger(str(tmp_path))
        print(f"start {number}")
        sys.stdout.close()
        sys.stdout = sys.__stdout__
    assert sorted(log.read_text() for log in tmp_path.glob("log.txt*")) == [f"start {n}\n" for n in range(4)]


def test_what_its_train_py_calls(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # setup_logger replaces it
    setup_logger(str(tmp_path))
    print(collect_env_info())
    sys.stdout.close()
    assert "torch" in (tmp_path / "log.txt").read_text().lower()
    assert json.loads(json.dumps(get_cfg_default().OPTIM))["NAME"] == "adam"
