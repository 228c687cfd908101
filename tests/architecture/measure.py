"""Measures the source: how many files there are, how long they and their functions are, and what data pass.

    python tests/architecture/measure.py              the table
    python tests/architecture/measure.py --walk       and the files that an image and a weight file pass

A function's length is its body without the docstring. A file is passed when a function in it runs.
"""

import ast
import statistics
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).parents[2]


def sources() -> list[Path]:
    return sorted(path for folder in ("radtransfer", "cli") for path in (ROOT / folder).rglob("*.py"))


def body_lines(function: ast.FunctionDef) -> int:
    body = function.body
    if ast.get_docstring(function) is not None:
        body = body[1:]
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def measure() -> dict[str, int | float]:
    """The table: name of a measure to its value."""
    lengths, functions, docstrings, imports, blank = [], [], 0, 0, 0
    for path in sources():
        text = path.read_text(encoding="utf-8")
        lines, tree = text.splitlines(), ast.parse(text)
        lengths.append(len(lines))
        blank += sum(not line.strip() for line in lines)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                functions.append(body_lines(node))
            if isinstance(node, ast.Import | ast.ImportFrom):
                imports += node.end_lineno - node.lineno + 1
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
                docstrings += node.body[0].end_lineno - node.body[0].lineno + 1
    return {
        "modules": len(lengths),
        "packages": len({path.parent for path in sources()}),
        "lines": sum(lengths),
        "lines of imports": imports,
        "lines of docstrings": docstrings,
        "blank lines": blank,
        "median module": statistics.median(lengths),
        "modules under 60 lines": sum(length < 60 for length in lengths),
        "median function": statistics.median(functions),
        "functions of 5 lines or fewer, %": round(100 * sum(n <= 5 for n in functions) / len(functions)),
        "90th percentile of functions": statistics.quantiles(functions, n=10)[8],
    }


class Walk:
    """Records the files of radtransfer in which functions run while the block does, by their first call."""

    def __enter__(self) -> "Walk":
        self.files: dict[str, str] = {}
        sys.setprofile(self._called)
        threading.setprofile(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _called(self, frame, event: str, _: object) -> None:
        code, ours = frame.f_code, (str(ROOT / "radtransfer"), str(ROOT / "cli"))
        if event == "call" and code.co_filename.startswith(ours) and not code.co_name.startswith("<"):
            self.files.setdefault(str(Path(code.co_filename).relative_to(ROOT)), code.co_name)


def walks(folder: Path) -> dict[str, dict[str, str]]:
    """What passes which files: each file, with the first of its functions that ran."""
    from radtransfer.process import Progress, import_keras

    import_keras()
    import keras
    import numpy as np
    from PIL import Image

    import radtransfer
    from radtransfer.data.image_check import check_images
    from radtransfer.data.readers import read_table
    from radtransfer.data.splits import assign_folds
    from radtransfer.images.pipeline import make_batches

    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 40, 3), dtype="uint8")
        Image.fromarray(pixels).save(folder / f"{number}.png")
    rows = [f"{number}.png,{'ab'[number % 2]},{number}" for number in range(12)]
    (folder / "images.csv").write_text("\n".join(["path,label,patient", *rows]))
    config = radtransfer.load_config(options={"data.source": str(folder / "images.csv"), "splits.folds": 2})
    with Walk() as image:
        table = read_table(config.data)
        assign_folds(table, config.splits, seed=0, allow_leakage=False)
        found = check_images(
            table, workers=1, on_bad_image="error", report_file=None, reading=config.images, progress=Progress()
        )
        batches = make_batches(
            found.table.paths, found.table.files, found.facts, table.targets, image_size=32, batch_size=4, workers=1
        )
        next(iter(batches.in_order()))
    keras.applications.ResNet50(weights=None, include_top=False).save_weights(folder / "own.weights.h5")
    with Walk() as weights:
        radtransfer.build_backbone("resnet50", weights=str(folder / "own.weights.h5"), image_size=64)
    return {"an image, from a CSV cell to a batch": image.files, "a weight file, to its layers": weights.files}


if __name__ == "__main__":
    for name, value in measure().items():
        print(f"{name:36}{value:>8}")
    if "--walk" in sys.argv:
        with tempfile.TemporaryDirectory() as scratch:
            for name, files in walks(Path(scratch)).items():
                print(f"\n{name}: {len(files)} files")
                for file, function in files.items():
                    print(f"    {file:44}{function}")
