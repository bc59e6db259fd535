"""The runs that the scripts list, and the words that they give to train.py."""

from pathlib import Path

import forked
import pytest
from conftest import ROOT, patience

from datasets.drawing.styles import STYLES
from harness.catalog import group
from harness.command import split
from harness.plan import STYLES_SEEN, STYLES_UNSEEN, Request, shots_in
from train import parse_arguments


def runs(method, protocol, *words, shots=16, tmp="out"):
    return Request(method, protocol, list(words), Path("data"), Path(tmp), [1, 2], [shots]).runs()


@pytest.mark.parametrize("method", ["mocoop", "coop", "cocoop", "lasp", "zsclip", "zsclip2", "hard_mixture"])
@pytest.mark.parametrize("words", ["main small 4", "base2new small", "xd small", "dg small", "dg demo", "xd", "dg"])
def test_train_understands_every_run(method, words):
    protocol, *rest = words.split()
    listed = runs(method, protocol, *rest)
    assert len({run.folder for run in listed}) == len(listed)
    for run in listed:
        args = parse_arguments(run.arguments)
        settings = dict(zip(args.opts[::2], args.opts[1::2], strict=True))
        asked = None if method.startswith(("zsclip", "hard")) else "4" if protocol == "main" else "16"
        assert settings.get("DATASET.NUM_SHOTS") == asked
        assert {*(args.source_domains or []), *(args.target_domains or [])} <= set(STYLES)
        assert args.output_dir == str(run.folder)
        if run.needs:
            assert args.model_dir == str(run.needs.folder)
            assert args.eval_only


def test_domain_generalisation_on_the_demo_tests_styles_that_training_never_saw():
    assert set(STYLES_SEEN) | set(STYLES_UNSEEN) == set(STYLES)
    assert not set(STYLES_SEEN) & set(STYLES_UNSEEN)
    listed = runs("coop", "dg", "demo")
    assert sum(run.needs is None for run in listed) == 2  # one training run per seed
    assert len(listed) == 2 * (1 + len(STYLES_UNSEEN))


def test_joint_adds_an_evaluation_of_the_base_model_with_all_classes():
    request = Request("coop", "base2new", ["dtd"], seeds=[2], joint=True)
    base, new, joint = request.runs()
    assert joint.folder == Path("output/base2new/test_joint/dtd/shots_16/CoOp") / joint.folder.parent.name / "seed2"
    assert joint.needs is new.needs is base
    words = joint.arguments
    assert words[words.index("DATASET.SUBSAMPLE_CLASSES") + 1] == "joint"
    assert request.command(2) == "SEEDS=2 bash scripts/coop/base2new.sh dtd --joint"


def test_the_same_model_is_trained_once():
    """Few-shot on the source, cross-dataset and domain generalisation name each other's training runs."""
    listed = {p: runs("mocoop", p, *words)[0] for p, words in [("main", ["imagenet"]), ("xd", []), ("dg", [])]}
    for run in listed.values():
        named = {word for option, word in zip(run.arguments, run.arguments[1:], strict=False) if option == "--same-as"}
        assert named == {str(other.folder) for other in listed.values() if other is not run}
    assert "--same-as" not in runs("mocoop", "dg", "demo")[0].arguments  # trained on some styles only


def test_small_stands_for_the_small_benchmarks():
    small, variants = group("small"), group("small_variants")
    assert [run.dataset for run in runs("mocoop", "main", "small") if run.folder.name == "seed1"] == small
    assert {run.dataset for run in runs("mocoop", "base2new", "small")} == set(small)
    assert [run.dataset for run in runs("mocoop", "xd", "small")][: len(small)] == ["drawn", *small[1:]]
    assert [run.dataset for run in runs("mocoop", "dg", "small")][: 1 + len(variants)] == ["drawn", *variants]
    with pytest.raises(ValueError, match='did you mean "small"'):
        runs("mocoop", "main", "smal")


def test_several_datasets_with_commas_between():
    listed = runs("coop", "main", "caltech101,dtd", "4")
    assert [run.dataset for run in listed] == ["caltech101"] * 2 + ["dtd"] * 2
    assert {run.dataset for run in runs("zsclip", "base2new", "small,dtd")} == {*group("small"), "dtd"}
    with pytest.raises(ValueError, match='the dataset "dtd" is named twice in "dtd,all"'):
        runs("coop", "main", "dtd,all")
    with pytest.raises(ValueError, match=r'"dtx" is no dataset .*; did you mean "dtd"'):
        runs("coop", "main", "caltech101,dtx")
    with pytest.raises(ValueError, match='"drawn,dtd" is no dataset'):  # one source
        runs("coop", "xd", "drawn,dtd")


def test_the_words_of_coops_own_script_are_answered_with_those_of_this_one():
    with pytest.raises(ValueError, match=r"here: main\.sh caltech101 1 rn50_ep50 TRAINER\.COOP\.CLASS_TOKEN_POSITION end "
                                         r"TRAINER\.COOP\.N_CTX 16 TRAINER\.COOP\.CSC False"):  # fmt: skip
        runs("coop", "main", *["caltech101", "rn50_ep50", "end", "16", "1", "False"])


def test_cross_dataset_goes_from_imagenet_to_the_ten_others():
    listed = runs("lasp", "xd")
    assert [run.dataset for run in listed[:11]] == ["imagenet", *group("benchmarks")[1:]]


def test_own_folders_of_one_name_are_refused(tmp_path):
    for place in ("a", "b"):
        (tmp_path / place / "birds" / "owl").mkdir(parents=True)
    with pytest.raises(ValueError, match='are called "birds", and so would their runs be: rename one'):
        runs("coop", "main", f"{tmp_path / 'a' / 'birds'},{tmp_path / 'b' / 'birds'}", "4")


def test_what_is_there_is_no_setting(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "LABELS.CSV").touch()
    assert split(["LABELS.CSV", "16", "OPTIM.LR", "1"]) == (["LABELS.CSV", "16"], ["OPTIM.LR", "1"])


def test_all_pictures_are_a_number_of_shots_too():
    (run, _) = runs("coop", "main", "dtd", "all")
    assert run.folder.parts[-4:-2] == ("shots_all", "CoOp")
    assert run.arguments[-2:] == ["DATASET.NUM_SHOTS", "-1"]
    assert "SEEDS=1 OUTPUT=out bash scripts/coop/main.sh dtd all" in " ".join(run.arguments)
    assert shots_in("1 16,all", "SHOTS") == [1, 16, -1]
    for word in ("0", "-1", "al"):
        with pytest.raises(ValueError, match=f'SHOTS is "{word}": use whole numbers from 1 on, or all'):
            shots_in(word, "SHOTS")


def test_a_command_says_its_seed_in_one_way():
    (first, *_) = runs("mocoop", "base2new", "dtd", "2")
    assert "SEEDS=2 OUTPUT=out bash scripts/mocoop/base2new.sh dtd" in " ".join(first.arguments)


IDLE = {
    "main demo 16 --wait": "--wait is for a cluster: give --cluster slurm, too",
    "main demo 16 --pack 2": "--pack is for a cluster",
    "main demo 16 --partition gpu": "--partition is for a cluster",
    "main demo 16 --cluster slrum": 'CLUSTER is "slrum": use "slurm"',
    "main demo 4 --shots 16": 'the shots are said twice, as "4" and by --shots',
    "main demo 4 small --cfg small_ep6": 'the config is said twice, as "small" and by --cfg',
    "base2new demo 2 --seeds 1": 'the seed is said twice, as "2" and by --seeds',
    "xd demo cifar10 cifar10": 'the target "cifar10" is named twice',
    "main demo 16 --joint": "--joint is for base2new, not for main",
    "main demo 16 --jobs 2,3": 'JOBS is "2,3": use one number',
    "main demo 16 --status --wait --cluster slurm": "--status and --wait exclude each other",
}


@pytest.mark.parametrize("asked", IDLE)
def test_words_of_the_scripts_that_could_do_nothing_are_refused(asked, tmp_path):
    words = ["mocoop", *asked.split(), "--output", tmp_path]
    process = forked.run(ROOT / "scripts" / "run.py", *words, timeout=patience(120))
    assert process.returncode == 2
    assert process.stderr.startswith(f"error: {IDLE[asked]}"), process.stderr
