import ast
import configparser
import importlib
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"tensorflow", "keras", "numpy", "sklearn", "h5py", "PIL", "keras_cv", "tensorflow_datasets"}
HEAVY |= {"mlflow", "wandb", "tensorboard"}


def modules_after(code):
    listing = "print('modules:', *sorted({name.partition('.')[0] for name in sys.modules}))"
    process = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\n{listing}"], capture_output=True, text=True, check=True
    )
    return set(process.stdout.rpartition("modules: ")[2].split())


@pytest.mark.parametrize(
    "code",
    [
        "import radtransfer",
        "from radtransfer.models.backbone import BACKBONES; [BACKBONES[name] for name in BACKBONES]",
        "from radtransfer.cli.main import application; application(['--help'], standalone_mode=False)",
        "from radtransfer.cli.main import application; application(['finetune', '--help'], standalone_mode=False)",
        "from radtransfer.cli.main import application; application(['compare-cca', '--help'], standalone_mode=False)",
        "from radtransfer.cli.main import application; application(['data', 'check', '--help'], standalone_mode=False)",
        "from radtransfer.cli.main import application; application(['study', '--help'], standalone_mode=False)",
        "from radtransfer.cli.main import application; application(['doctor', '--help'], standalone_mode=False)",
        "from radtransfer.cli.main import application; application(['completion', 'zsh'], standalone_mode=False)",
        "from radtransfer.config.load import load_config; load_config('quickstart')",
        "from radtransfer.studies.file import load_study; load_study('quick-advice')",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code):
    assert modules_after(code) & HEAVY == set()


def test_setup_cfg_lists_every_package_and_no_other():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    inner = {".".join(path.parent.relative_to(ROOT).parts) for path in ROOT.glob("radtransfer/**/__init__.py")}
    mapped = {f"radtransfer.{name}" for name in ("cli", "configs", "weights")}
    assert listed == inner | mapped


def test_the_top_level_holds_what_the_design_card_names():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    tops = {line.partition("/")[0] for line in tracked.stdout.splitlines()}
    card = {"setup.cfg", "radtransfer", "cli", "configs", "tests", "weights", "README.md"}
    beside = {"pyproject.toml", "LICENSE", "CHANGELOG.md", "examples"}
    assert {top for top in tops if not top.startswith(".")} <= card | beside


@pytest.mark.slow
def test_a_wheel_installs_one_top_level_package_with_its_data(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT], check=True, capture_output=True
    )
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"radtransfer"}
    assert "radtransfer/weights/manifest.yaml" in names
    assert "radtransfer/configs/quickstart.yaml" in names


@pytest.mark.parametrize("path", sorted(ROOT.glob("radtransfer/**/*.py")), ids=lambda path: path.stem)
def test_the_library_never_prints_imports_click_or_asserts(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Assert)
        assert not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print")
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert not any(name.partition(".")[0] == "click" for name in names)
            assert not any("keras.src" in name for name in names)
            assert path.stem == "__main__" or not any(name.startswith("radtransfer.cli") for name in names)


@pytest.mark.parametrize("path", sorted(ROOT.glob("cli/*.py")), ids=lambda path: path.stem)
def test_commands_call_the_functions_of_the_python_api(path):
    """And not what these call."""
    imported = {
        (node.module, alias.name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    below = {
        ("radtransfer.data.check", "check_data"),
        ("radtransfer.evaluation.explanations", "explain"),
        ("radtransfer.evaluation.predictions", "predict_stream"),
        ("radtransfer.evaluation.results", "evaluate_on"),
        ("radtransfer.evaluation.results", "evaluate_run"),
        ("radtransfer.exports.write", "export_run"),
        ("radtransfer.reports.report", "report_runs"),
        ("radtransfer.similarity.compare_layers", "compare"),
        ("radtransfer.similarity.population", "compare_population"),
        ("radtransfer.studies.runs", "compute_study"),
        ("radtransfer.training.run", "finetune"),
    }
    assert all(hasattr(importlib.import_module(module), name) for module, name in below)
    assert not imported & below


def test_every_test_file_has_a_name_of_its_own():
    names = Counter(path.name for path in Path(__file__).parents[1].rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
