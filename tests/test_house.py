"""How the house stands: what a record refuses, what the wheel holds, whose code a checkout runs, and no circles."""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT

from harness.plan import Request
from trainers.coop.options import CoOpOptions
from trainers.linear_probe.options import LinearProbeOptions
from trainers.methods import methods, model_class
from trainers.options import Method, Options, option


def test_every_record_is_true():
    """Models, trainers, recipes and scripts are where the records say."""
    for trainer, method in methods().items():
        assert method.trainer == trainer
        assert model_class(method).__name__ == method.model
        text = (ROOT / method.package.replace(".", "/") / "trainer.py").read_text()
        assert f"class {trainer}(" in text
        assert (ROOT / "scripts" / method.name / "main.sh").is_file()
        assert (ROOT / "scripts" / method.name / "base2new.sh").is_file() == method.knows_new_classes


def test_options_below_those_of_another_method():
    @dataclass(frozen=True)
    class Nearer(CoOpOptions):
        KEY = "NEARER"

        weights: list[float] = option([1.0, 2.0], "a list of numbers")

    assert Nearer(n_ctx=3, weights=[1, 0.5]).weights == [1, 0.5]
    assert "TRAINER.NEARER.N_CTX" in Nearer.settings()
    with pytest.raises(ValueError, match=r'WEIGHTS is \["a"\]|use a list of numbers'):
        Nearer(weights=["a"])


def test_types_that_no_option_has():
    @dataclass(frozen=True)
    class Odd(Options):
        KEY = "ODD"

        table: dict[str, int] | None = option(None, "of no kind")

    with pytest.raises(TypeError, match=r"Odd\.table is of type dict\[str, int\]: use int, "):
        Method("odd", "Odd", "OddCLIP", options=Odd)


def test_what_is_made_from_a_runs_pictures_is_kept_for_new_classes():
    """A method without steps that saw the new classes' pictures would print an H that means nothing."""
    keeps = {name: method.keeps_a_model for name, method in methods().items() if not method.takes_steps}
    assert keeps.pop("ZeroshotHead")
    assert not any(keeps.values())
    base, new = Request("zsclip_head", "base2new", ["demo"], seeds=[1]).runs()
    assert new.needs is base
    with pytest.raises(ValueError, match=r"has heads \('mean',\): use \('none', 'text_means'\)"):
        Method("odd", "Odd", "OddCLIP", options=LinearProbeOptions, heads=("mean",))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The project's wheel, unpacked."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    source.mkdir()
    for name in ("trainers", "pyproject.toml", "setup.py", "LICENSE", "README.md"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    words = ["wheel", "-q", "--no-build-isolation", "--no-deps", "--no-index", "-w", str(place), str(source)]
    done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = place.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(place / "site")
    return place / "site"


def test_the_wheel_installs_mocoop_alone(wheel):
    names = {path.name for path in wheel.iterdir() if not path.name.endswith(".dist-info")}
    assert names == {"mocoop"}
    packaged = {str(path.relative_to(wheel / "mocoop")) for path in (wheel / "mocoop").rglob("*") if path.is_file()}
    own = {str(path.relative_to(ROOT / "trainers")) for path in (ROOT / "trainers").rglob("*")
           if path.suffix in (".py", ".j2") and path.is_file()}  # fmt: skip
    assert own <= packaged
    (entry,) = wheel.glob("*.dist-info/entry_points.txt")
    assert "mocoop = mocoop.core.inference.commands:main" in entry.read_text()


def in_wheel(wheel, code, tmp_path):
    """Runs code where the wheel is, another package is called datasets, and this checkout is not."""
    (tmp_path / "elsewhere" / "datasets").mkdir(parents=True)
    (tmp_path / "elsewhere" / "datasets" / "__init__.py").write_text("whose = 'somebody else'")
    paths = os.pathsep.join([str(wheel), str(tmp_path / "elsewhere")])
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path,
                          env=os.environ | {"PYTHONPATH": paths})  # fmt: skip


def test_mocoop_beside_a_package_called_datasets(wheel, tmp_path):
    code = (
        "import sys, datasets, mocoop\nfrom mocoop import load_run\nassert datasets.whose == 'somebody else'\n"
        "assert 'site' in mocoop.__file__, mocoop.__file__\n"
        "from mocoop.methods import methods, model_class\nprint(len([model_class(m) for m in methods().values()]))\n"
        "assert not {'dassl', 'trainers', 'harness', 'yacs'} & set(sys.modules)\n"
        "sys.argv = ['mocoop', 'predict', '/nowhere', '*.none']\n"
        "from mocoop.core.inference.commands import main\nprint(main())"
    )
    done = in_wheel(wheel, code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(len(methods())), "2"]
    assert done.stderr.strip() == "error: no pictures at *.none: give files, folders or patterns"


def test_the_same_package_under_two_names_registers_once():
    code = (
        "import importlib.util, sys\n"
        "spec = importlib.util.spec_from_file_location('mocoop', 'trainers/__init__.py', "
        "submodule_search_locations=['trainers'])\n"
        "module = importlib.util.module_from_spec(spec)\nsys.modules['mocoop'] = module\nspec.loader.exec_module(module)\n"
        "import trainers.coop.trainer, mocoop.coop.trainer\n"
        "from dassl.engine import TRAINER_REGISTRY\nprint(TRAINER_REGISTRY.registered_names().count('CoOp'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == ["1"], done.stderr


def test_a_checkout_runs_its_own_code(tmp_path):
    """Whatever is installed, and wherever one stands: scripts put their own checkout first."""
    clone = tmp_path / "clone"
    for name in ("trainers", "harness", "datasets", "configs", "scripts", "compat"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "train.py", clone / "train.py")
    words = [clone / "scripts" / "run.py", "zsclip", "main", "demo", "--dry-run"]
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1].startswith(str(clone / "output"))


def imported(file: Path) -> set[str]:
    """What of this project a module imports when it is imported, as dotted names; what functions import does not count."""
    own = list(file.relative_to(ROOT).with_suffix("").parts)
    package = own if file.name == "__init__.py" else own[:-1]
    package = package[:-1] if package and package[-1] == "__init__" else package
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_nothing_goes_in_circles():
    files = {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f
             for folder in ("trainers", "harness", "datasets") for f in (ROOT / folder).rglob("*.py")}  # fmt: skip
    needs = {
        name: {other for other in imported(file) if other in files and other != name} for name, file in files.items()
    }
    while True:
        free = [name for name, others in needs.items() if not others & needs.keys()]
        if not free:
            break
        for name in free:
            del needs[name]
    assert not needs, {name: sorted(others & needs.keys()) for name, others in needs.items()}


def test_what_runs_a_method_knows_no_method():
    """core/ is below the methods; harness/ above all; datasets/ beside."""
    own = {method.package for method in methods().values()}
    for file in (ROOT / "trainers" / "core").rglob("*.py"):
        assert not [name for name in imported(file) if name.startswith((*own, "harness"))], file
    for file in (ROOT / "trainers").rglob("options.py"):
        text = file.read_text()
        assert "import torch" not in text, file
        assert "dassl" not in text, file


def test_benchmarks_find_the_project():
    """What timings/ runs is this checkout: common.py, or a path of their own, comes before the first of its modules."""
    for file in sorted((ROOT / "timings").glob("*.py")):
        lines = file.read_text().splitlines()
        ours = [
            i for i, line in enumerate(lines) if re.match(r"(from|import) (trainers|harness|datasets|train)\b", line)
        ]
        finds = [i for i, line in enumerate(lines) if re.match(r"from common import|sys\.path", line)]
        assert not ours or (finds and min(finds) < min(ours)), file.name
