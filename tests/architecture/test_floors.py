"""The house has floors, and imports go downwards only; the picture is in the README."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "radtransfer"

# Modules of one floor do not import each other, except within a family (a tuple):
# each member may import those before it.
FLOORS = {
    "ground": [
        (
            "errors",
            "safe_text",
            "interruption",
            "environment",
            "parts",
            "system_errors",
            "whole_file",
            "cache",
            "intensity_window",
            "seeds",
            "image_place",
            "layers",
            "near_path",
            "remote_address",
            "progress",
            "parallel",
            "yaml_text",
            "schemes",
            "synonyms",
            "closest_setting",
            "setting_values",
            "settings",
            "recipes",
            "config",
            "registry",
            "kept_arrays",
            "run_reading",
            "locking",
            "runs",
            "result_folder",
        )
    ],
    "tables": [
        ("augmentations",),
        ("backbones",),
        ("export_formats",),
        ("figures",),
        ("initializers",),
        ("similarity",),
        ("weight_formats",),
        ("preprocessing",),
        ("losses",),
        ("optimizers",),
        ("fast_layers",),
        ("schedule",),
        ("trackers",),
        ("epoch_order",),
        ("checkpoint",),
        ("device",),
        ("image_formats", "datasets"),
        ("metrics",),
    ],
    "materials": [
        ("splits",),
        ("examination",),
        ("outline",),
    ],
    "steps": [
        (
            "pretrained",
            "curve",
            "pipeline",
            "classifier",
            "cut",
            "features",
            "learner",
            "batch_norm",
            "fold_data",
            "training",
            "distribution",
        ),
        ("transfer", "initialization"),
        ("checks",),
        ("tracking",),
    ],
    "jobs": [
        (
            "run_names",
            "run_address",
            "networks",
            "experiment",
            "preparation",
            "planning",
            "plan_block",
            "fold_results",
            "fold_training",
            "assistance",
            "finetune",
            "dry_run",
            "rate_search",
            "studies",
        ),
        ("data", "input_scale"),
        ("doctor",),
        ("prepared",),
        ("comparisons", "reports", "predictions", "exports", "explanations"),
    ],
}

PLACE = {
    module: (floor, family, position)
    for floor, (_, families) in enumerate(FLOORS.items())
    for family, members in enumerate(families)
    for position, module in enumerate(members)
}
NUMPY_ONLY = {
    "numpy",
    "collections",
    "dataclasses",
    "functools",
    "itertools",
    "math",
    "typing",
    "abc",
    "importlib",
    "contextlib",
    "warnings",
}


def imports(path):
    """The top-level names of this package that a file imports, and all others."""
    own, others = set(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = (
                [node.module] if node.module != "radtransfer" else [f"radtransfer.{alias.name}" for alias in node.names]
            )
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "radtransfer":
                own.add(parts[1])
            else:
                others.add(parts[0])
    return own, others


def files():
    return [path for path in sorted(ROOT.rglob("*.py")) if path.parent != ROOT or not path.name.startswith("__")]


def test_every_module_has_a_floor():
    rooms = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in files()}
    assert rooms == set(PLACE)


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_downwards(path):
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    floor, family, position = PLACE[room]
    for name in imports(path)[0] - {room, "__version__"}:
        other_floor, other_family, other_position = PLACE[name]
        below = other_floor < floor
        in_family = (other_floor, other_family) == (floor, family) and other_position < position
        assert below or in_family, f"{room} imports {name}"


@pytest.mark.parametrize("path", sorted((ROOT / "similarity").glob("*.py")), ids=lambda path: path.stem)
def test_similarity_needs_numpy_only(path):
    assert imports(path)[1] <= NUMPY_ONLY


def dotted(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules_imported(path, known):
    """The modules of this package that a file imports, a package's own `__init__` included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "radtransfer":
            base = ".".join(node.module.split(".")[1:])
            names = [f"{base}.{alias.name}".strip(".") for alias in node.names]
            yield from (name if name in known else base for name in names if name in known or base in known)


def test_no_module_imports_itself_through_others():
    known = {dotted(path): path for path in files()}
    graph = {name: set(modules_imported(path, known)) - {name} for name, path in known.items()}
    graph = {name: {other for other in others if other != name.split(".")[0]} for name, others in graph.items()}
    list(TopologicalSorter(graph).static_order())
