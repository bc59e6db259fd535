"""Which setting counts: defaults < dataset config < method config < command line."""

import pytest
import yaml
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from train import parse_arguments, setup_cfg
from trainers.core.settings import all_settings

NUMBERS = {
    "OPTIM.LR": st.floats(1e-6, 10, allow_nan=False),
    "OPTIM.MAX_EPOCH": st.integers(1, 500),
    "DATALOADER.TRAIN_X.BATCH_SIZE": st.integers(1, 512),
    "TRAINER.MOCOOP.TOP_K": st.integers(1, 30),
    "TRAINER.MOCOOP.TEXT_NOISE": st.floats(0, 1),
}
some = st.fixed_dictionaries({}, optional=NUMBERS)


def nested(flat):
    tree = {}
    for key, value in flat.items():
        *path, last = key.split(".")
        node = tree
        for name in path:
            node = node.setdefault(name, {})
        node[last] = value
    return tree


def value_of(cfg, key):
    for name in key.split("."):
        cfg = cfg[name]
    return cfg


def configured(folder, dataset, method, line):
    (folder / "dataset.yaml").write_text(yaml.safe_dump(nested({"DATASET.NAME": "Caltech101", **dataset})))
    (folder / "method.yaml").write_text(yaml.safe_dump(nested(method)))
    words = ["--trainer", "MoCoOp", "--seed", "1", "--output-dir", "out"]
    words += ["--dataset-config-file", str(folder / "dataset.yaml"), "--config-file", str(folder / "method.yaml")]
    words += [str(word) for pair in line.items() for word in pair]
    return setup_cfg(parse_arguments(words))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(dataset=some, method=some, line=some)
def test_the_nearest_setting_counts(tmp_path_factory, dataset, method, line):
    folder = tmp_path_factory.mktemp("configs")
    cfg, defaults = configured(folder, dataset, method, line), configured(folder, {}, {}, {})
    for key in NUMBERS:
        expected = next((level[key] for level in (line, method, dataset) if key in level), value_of(defaults, key))
        assert value_of(cfg, key) == pytest.approx(expected)
    assert cfg.dump() == configured(folder, dataset, method, line).dump()


def test_the_settings_of_lasps_own_configs_and_commands_are_known():
    own = ["N_CTX", "CTX_INIT", "PREC", "ENABLE", "LASP_PROMPTS", "LASP_LOSS_WEIGHT", "ENABLE_CORRECTION", "TRAIN_W",
           "ENABLE_IMPLICIT_OP", "PRETRAINED_PROMPTS_DIR", "FINETUNE_VIT_LN"]  # fmt: skip
    assert {"DATASET.INCLUDE_ALL_CLASSES", *(f"TRAINER.LASP.{key}" for key in own)} <= all_settings().keys()


# ZeroshotCLIP's configs train nothing
RECIPES = [f for f in sorted(ROOT.glob("configs/trainers/*/*.yaml")) if f.parent.name != "ZeroshotCLIP"]


@pytest.mark.parametrize("file", RECIPES, ids=lambda f: f"{f.parent.name}/{f.stem}")
def test_a_shipped_recipe_has_epochs_left_after_its_warm_up(file):
    optim = yaml.safe_load(file.read_text())["OPTIM"]
    assert optim["WARMUP_EPOCH"] < optim["MAX_EPOCH"]
