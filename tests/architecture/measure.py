"""Measures the source: how many files there are, and how long they and their functions are.

    python tests/architecture/measure.py

A function's length is its body without the docstring.
"""

import ast
import statistics
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


if __name__ == "__main__":
    for name, value in measure().items():
        print(f"{name:36}{value:>8}")
