"""Which setting counts: defaults < dataset config < method config < command line."""

import re
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.command import parse_arguments as parse_words
from harness.command import requested
from harness.generate import MARK, made_files, nested_yaml
from harness.plan import Request
from harness.preflight import check_settings
from train import parse_arguments, refuse_idle_words, setup_cfg
from trainers.core.settings.configure import all_settings, configure, flat

NUMBERS = {
    "OPTIM.LR": st.floats(1e-6, 10, allow_nan=False),
    "OPTIM.MAX_EPOCH": st.integers(1, 500),
    "DATALOADER.TRAIN_X.BATCH_SIZE": st.integers(1, 512),
    "TRAINER.MOCOOP.TOP_K": st.integers(1, 30),
    "TRAINER.MOCOOP.TEXT_NOISE": st.floats(0, 1),
}
some = st.fixed_dictionaries({}, optional=NUMBERS)


def configured(folder, dataset, method, line):
    (folder / "dataset.yaml").write_text(nested_yaml({"DATASET.NAME": "Caltech101", **dataset}))
    (folder / "method.yaml").write_text(nested_yaml(method))
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
        expected = next((level[key] for level in (line, method, dataset) if key in level), flat(defaults)[key])
        assert flat(cfg)[key] == pytest.approx(expected)
    assert cfg.dump() == configured(folder, dataset, method, line).dump()


def test_the_settings_of_lasps_own_configs_and_commands_are_known():
    own = ["N_CTX", "CTX_INIT", "PREC", "ENABLE", "LASP_PROMPTS", "LASP_LOSS_WEIGHT", "ENABLE_CORRECTION", "TRAIN_W",
           "ENABLE_IMPLICIT_OP", "PRETRAINED_PROMPTS_DIR", "FINETUNE_VIT_LN"]  # fmt: skip
    assert {"DATASET.INCLUDE_ALL_CLASSES", *(f"TRAINER.LASP.{key}" for key in own)} <= all_settings().keys()


# ZeroshotCLIP's configs train nothing
RECIPES = [f for f in sorted(ROOT.glob("configs/trainers/*/*.yaml")) if f.parent.name != "ZeroshotCLIP"]


@pytest.mark.parametrize("file", RECIPES, ids=lambda f: f"{f.parent.name}/{f.stem}")
def test_a_shipped_recipe_is_read_and_has_epochs_left_after_its_warm_up(file):
    configure([str(file)], [])
    optim = yaml.safe_load(file.read_text())["OPTIM"]
    assert optim["WARMUP_EPOCH"] < optim["MAX_EPOCH"]


def test_what_is_made_from_the_methods_is_current():
    process = subprocess.run(
        [sys.executable, "scripts/make_files.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stdout


def test_what_people_put_beside_what_is_made_is_theirs():
    made = [text for name, text in made_files().items() if not name.startswith("docs/")]
    assert made
    assert all(MARK.search(text) for text in made)
    assert not MARK.search("# mine, made from a recipe\nOPTIM: {LR: 0.1}\n")
    assert not MARK.search('#!/bin/bash\npython scripts/run.py mocoop main demo\nexec ./mine.sh "$@"\n')


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["OPTIM.MAX_EPOCH", "ten"], 'OPTIM.MAX_EPOCH is "ten": use a whole number from 1 to 1000000'),
        (["OPTIM.MAX_EPOCH", "0"], "OPTIM.MAX_EPOCH is 0: use a whole number from 1"),
        (["OPTIM.MAX_EPOCH", "1000000000"], "OPTIM.MAX_EPOCH is 1000000000: use"),
        (["OPTIM.LR", "nan"], 'OPTIM.LR is "nan": use a number from 0'),
        (["OPTIM.LR", "-1"], "OPTIM.LR is -1: use a number from 0"),
        (["OPTIM.LR", "None"], "OPTIM.LR is None: use a number"),
        (["DATASET.NUM_SHOTS", "0"], "DATASET.NUM_SHOTS is 0: use a whole number at least 1 or -1"),
        (["TEST.SPLIT", "training"], 'TEST.SPLIT is "training": use val or test'),
        (["TEST.FINAL_MODEL", "best"], 'TEST.FINAL_MODEL is "best": use last_step or best_val'),
        (["TRAINER.MOCOOP.PREC", "fp8"], 'TRAINER.MOCOOP.PREC is "fp8": use fp32, fp16, amp or bf16'),
        (["TRAINER.MOCOOP.TEXT_CLASSES", "some"], 'TRAINER.MOCOOP.TEXT_CLASSES is "some": use all or train'),
        (["LOG", "mlflow"], 'LOG is "mlflow": use'),
        (["INPUT.SIZE", "()"], "INPUT.SIZE is (): use two whole numbers from 1 to 4096"),
        (["INPUT.SIZE", "32"], "INPUT.SIZE is 32: use two whole numbers"),
        (["INPUT.TRANSFORMS", "['flip']"], "INPUT.TRANSFORMS is ['flip']: use a list of words of random_flip"),
        (["TRAINER.MOCOOP.TOP_K", "1.5"], "TRAINER.MOCOOP.TOP_K is 1.5: use a whole number at least 1"),
        (["TRAINER.MOCOOP.CORRECTION", "maybe"], 'TRAINER.MOCOOP.CORRECTION is "maybe": use True or False'),
        (
            ["TRAINER.MOCOOP.TEMPLATE_GROUPS", "['a {}.']"],
            "TEMPLATE_GROUPS is ['a {}.']: use lists of words",
        ),
        (["OPTIM.LRR", "1"], '"OPTIM.LRR", which does not exist; did you mean "OPTIM.LR"?'),
        (["OPTIM", "1"], '"OPTIM", which does not exist'),
        (["OPTIM.LR"], '"OPTIM.LR" stands alone'),
    ],
)
def test_every_setting_is_checked_in_one_line_before_anything_heavy(words, message):
    arguments = parse_arguments(["--trainer", "MoCoOp", "--seed", "1", "--output-dir", "out", *words])
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        setup_cfg(arguments)
    assert len(str(caught.value).splitlines()) == 1


def test_settings_are_checked_without_importing_torch():
    code = "import sys; from harness.command import *; sys.argv[1:] = ['mocoop', 'main', 'demo', '16', '--dry-run']; main()"
    check = f"{code}; print('torch' in sys.modules, 'numpy' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
    assert process.stdout.strip().endswith("False False"), process.stderr


@pytest.mark.parametrize(
    "words",
    [
        "--no-table main demo 16 OPTIM.LR 0.01",
        "main demo --no-table 16 OPTIM.LR 0.01",
        "main demo 16 OPTIM.LR 0.01 --no-table",
        "main OPTIM.LR 0.01 demo --no-table 16",
    ],
)
def test_options_stand_anywhere(words):
    (request,), _ = requested(parse_words(["mocoop", *words.split()]))
    assert (request.dataset, request.shots, request.settings) == ("demo", [16], ["OPTIM.LR", "0.01"])


@pytest.mark.parametrize("file", ["x.py", "list.yaml", "broken.yaml"])
def test_only_yaml_is_read(file, tmp_path):
    (tmp_path / "x.py").write_text("raise SystemExit('was run')")
    (tmp_path / "list.yaml").write_text("[1, 2]")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(ValueError, match=r"no configuration|no yaml"):
        setup_cfg(parse_arguments(["--config-file", str(tmp_path / file)]))


@pytest.mark.parametrize(("trainer", "setting", "said"), [
    ("CoOp", "TRAINER.LASP.N_CTX 3", "TRAINER.LASP.N_CTX is no setting of CoOp, whose are TRAINER.COOP.*: leave it out"),
    ("CoOp", "OPTIM.STEPSIZE 3", 'OPTIM.STEPSIZE acts with LR_SCHEDULER "single_step" or "multi_step" alone'),
    ("CoOp", "OPTIM.ADAM_BETA1 0.5", "OPTIM.ADAM_BETA1 acts with NAME"),
    ("CoOp", "OPTIM.WARMUP_MIN_LR 0.1", "OPTIM.WARMUP_MIN_LR acts with WARMUP_TYPE"),
    ("CoOp", "INPUT.COLORJITTER_B 0.1", 'INPUT.COLORJITTER_B is a parameter of "colorjitter"'),
    ("CoOp", "MODEL.HEAD.ACTIVATION gelu", "MODEL.HEAD.ACTIVATION does nothing here"),
    ("CoOp", "TRAINER.COOP.CSC True", 'TRAINER.COOP.CSC acts with CTX_INIT "" alone, and it is "a photo of a"'),
    ("MoCoOp", "TRAINER.MOCOOP.TEXT_NOISE 0.1 TRAINER.MOCOOP.TEXT_LOSS_WEIGHT 0", "TEXT_NOISE does nothing with"),
    ("MoCoOp", "TRAINER.MOCOOP.VISUAL_TOKENS [2] TRAINER.MOCOOP.VISUAL_RANK 1", "VISUAL_TOKENS acts with VISUAL_RANK 0"),
    ("MoCoOp", "DATASET.TEMPLATE_GROUPS [['a_{}.']] TRAINER.MOCOOP.TEMPLATE_GROUPS [['the_{}.']]",
     "DATASET.TEMPLATE_GROUPS does nothing beside TRAINER.MOCOOP.TEMPLATE_GROUPS"),
    ("MoCoOp", "DATASET.INCLUDE_ALL_CLASSES True", "DATASET.INCLUDE_ALL_CLASSES is LASP's, and does nothing for MoCoOp"),
    ("LASP", "TRAINER.LASP.ENABLE False TRAINER.LASP.TEXT_NOISE 0.1", "TEXT_NOISE acts with ENABLE True alone"),
    ("LASP", "TRAINER.LASP.LASP_LOSS_WEIGHT 0 TRAINER.LASP.TEXT_CLASSES train", "TEXT_CLASSES does nothing with"),
    ("ZeroshotCLIP", "OPTIM.LR 0.1", "OPTIM.LR is for training in steps, and ZeroshotCLIP takes none"),
    ("ZeroshotCLIP", "TRAINER.COOP.N_CTX 3", "TRAINER.COOP.N_CTX is no setting of ZeroshotCLIP: leave it out"),
])  # fmt: skip
def test_settings_that_could_do_nothing_are_refused(trainer, setting, said):
    words = [
        "--trainer",
        trainer,
        "--seed",
        "1",
        "--config-file",
        f"configs/trainers/{trainer}/small.yaml",
        *setting.split(),
    ]
    args = parse_arguments(words)
    with pytest.raises(ValueError, match=re.escape(said)):
        refuse_idle_words(args, setup_cfg(args))


def test_what_can_act_in_one_method_of_several_goes_to_that_one(tmp_path):
    words = ["main", "demo", "1", "OPTIM.MAX_EPOCH", "3", "TRAINER.COOP.CTX_INIT", "a photo"]
    requests = [Request(method, words[0], words[1:3], output=tmp_path, seeds=[1], settings=words[3:])
                for method in ("zsclip", "coop", "lasp")]  # fmt: skip
    runs = [run for request in requests for run in request.runs()]
    found = check_settings(runs, words[3:])
    told = {run.arguments[run.arguments.index("--trainer") + 1]: {*words[3:]} & {*run.arguments} for run in runs}
    assert told == {"ZeroshotCLIP": set(), "CoOp": {*words[3:]}, "LASP": {"OPTIM.MAX_EPOCH", "3"}}
    assert [cfg.OPTIM.MAX_EPOCH for cfg in found.values()] == [1, 3, 3]
    with pytest.raises(ValueError, match=r"OPTIM\.MAX_EPOCH is for training in steps, and ZeroshotCLIP"):
        check_settings(requests[0].runs(), words[3:])
