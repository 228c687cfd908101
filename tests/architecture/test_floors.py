"""The house has floors, and imports go downwards only; the picture is in the README."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "radtransfer"

# Modules of one floor do not import each other, except within a family (a tuple):
# each member may import those before it.
FLOORS = {
    "ground": [
        (
            "errors",
            "intensity_window",
            "seeds",
            "image_place",
            "progress",
            "parallel",
            "yaml_text",
            "schemes",
            "setting_values",
            "settings",
            "recipes",
            "config",
            "registry",
            "locking",
            "cache",
            "kept_arrays",
            "runs",
            "study",
            "study_reader",
            "study_file",
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
        ("schedule",),
        ("epoch_order",),
        ("checkpoint",),
        ("device",),
        ("decoding",),
        ("dicom_guard", "dicom_file", "dicom_grey", "dicom", "pillow_images", "image_formats", "datasets", "framing"),
        ("retina",),
        ("stratification", "train_size"),
        ("manifest",),
        ("roc", "scoring", "evaluation", "auc_difference"),
        ("agreement",),
        ("flat_model",),
        ("sampling",),
        ("gain",),
        ("fold_statistics",),
        ("report_style", "report_page", "report_numbers", "verdicts", "arm_results", "run_advice"),
    ],
    "materials": [
        ("leaks", "folds", "source_leaks"),
        ("weight_sources",),
        ("recognition",),
        ("outline",),
        (
            "checked_images",
            "image_examination",
            "images",
            "image_survey",
            "comparison_images",
            "run_predictions",
        ),
        ("layer_scores",),
        ("published_lines", "published_results", "published_tables", "published_advice"),
    ],
    "steps": [
        (
            "curve",
            "stored_pixels",
            "image_source",
            "pipeline",
            "kept_images",
            "classifier",
            "cut",
            "features",
            "learner",
            "batch_norm",
            "training",
        ),
        ("pretrained", "weight_inspection", "transfer", "initialization", "networks"),
        ("activations", "draws", "layer_pairs"),
        ("checks",),
    ],
    "jobs": [
        (
            "run_names",
            "run_address",
            "experiment",
            "preparation",
            "planning",
            "plan_block",
            "fold_results",
            "finetune",
            "dry_run",
            "run_cell",
            "run_workers",
            "study_cells",
            "study_pairs",
            "study_plan",
            "study_estimate",
            "study_runs",
            "study_tables",
            "study_folder",
            "sweeps",
        ),
        ("thumbnails", "data_summary", "data_check", "check_page", "data_split", "data_preview"),
        ("export",),
        ("prepared_shards", "prepared_folder", "prepared_provenance", "prepared_set"),
        (
            "layer_comparison",
            "compare",
            "compare_population",
            "compare_predictions",
            "compare_weights",
            "comparison_files",
            "run_arms",
            "arm_comparison",
            "run_changes",
            "run_sections",
            "training_sections",
            "report_folder",
            "published_sections",
            "published_report",
            "run_report",
        ),
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
    return [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


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
