"""What share of small faults do the tests catch? Puts faults into the code at random, one at a time, and runs tests.

    pytest -n 2 --dist loadfile --cov=radtransfer --cov-context=test --junitxml=junit.xml tests
    coverage combine  # where there are several files
    python tests/architecture/mutations.py --coverage .coverage --junit junit.xml --faults 50 --seed 0

Needs `pytest-cov`. A fault is one changed operator, constant, condition, argument or return value in the body of a
function. The tests that run its line are called from the fastest on, up to `--budget` seconds by the clock of the whole
run; a fault that none of them notices in that time counts as missed. Prints a line per fault and the share.
"""

import argparse
import ast
import contextlib
import random
import sqlite3
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
OPERATORS = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==", ast.In: "not in",
    ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is", ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*",
    ast.FloorDiv: "*", ast.Mod: "*", ast.And: "or", ast.Or: "and",
}  # fmt: skip
"""What an operator is replaced by."""


def module_paths() -> list[Path]:
    return sorted([*(ROOT / "radtransfer").rglob("*.py"), *(ROOT / "cli").rglob("*.py")])


def faults_in(path: Path) -> list[tuple[Path, int, int, int, str]]:
    """Every fault of a module: its path, line, start and end in bytes of the whole text, and the new text."""
    text = path.read_bytes()
    starts = [0]
    for line in text.split(b"\n"):
        starts.append(starts[-1] + len(line) + 1)

    def place(node: ast.AST) -> tuple[int, int]:
        return starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset

    found = []

    def add(node: ast.AST, start: int, end: int, new: str) -> None:
        found.append((path, node.lineno, start, end, new))

    def between(node: ast.AST, left: ast.AST, right: ast.AST, operator: type) -> None:
        """Replaces the operator between two operands, if nothing but it and spaces stands there."""
        start, end = place(left)[1], place(right)[0]
        if operator in OPERATORS and not set(text[start:end]) & set(b"()#\n"):
            add(node, start, end, f" {OPERATORS[operator]} ")

    for function in ast.walk(ast.parse(text)):
        if not isinstance(function, ast.FunctionDef):
            continue
        body = function.body[1:] if ast.get_docstring(function) else function.body
        for node in (inner for statement in body for inner in ast.walk(statement)):
            if isinstance(node, ast.Compare) and len(node.ops) == 1:
                between(node, node.left, node.comparators[0], type(node.ops[0]))
            elif isinstance(node, ast.BinOp):
                between(node, node.left, node.right, type(node.op))
            elif isinstance(node, ast.BoolOp):
                between(node, node.values[0], node.values[1], type(node.op))
            elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
                add(node, place(node)[0], place(node.operand)[0], "")
            elif isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
                add(node, *place(node), str(not node.value if isinstance(node.value, bool) else node.value + 1))
            elif isinstance(node, ast.Return) and node.value is not None:
                add(node, *place(node.value), "None")
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                add(node, *place(node), "None")
            elif isinstance(node, (ast.If, ast.IfExp, ast.While)):
                add(node, *place(node.test), f"not ({ast.unparse(node.test)})")
    return list(dict.fromkeys(found))


def tests_by_line(coverage: Path, junit: Path) -> dict[tuple[str, int], list[str]]:
    """The tests that run a line, the fastest first; lines are named by path below the root."""
    seconds = {}
    for case in ElementTree.parse(junit).iter("testcase"):
        seconds[case.get("classname").replace(".", "/") + "::" + case.get("name")] = float(case.get("time"))
    found: dict[tuple[str, int], list[str]] = {}
    modules = ["/" + str(path.relative_to(ROOT)) for path in module_paths()]
    with contextlib.closing(sqlite3.connect(coverage)) as database:
        rows = database.execute(
            "select path, context, numbits from line_bits join file on file.id = file_id "
            "join context on context.id = context_id where context != ''"
        )
        for path, context, bits in rows:
            name = context.rpartition("|")[0]
            below = next(module[1:] for module in modules if path.endswith(module))
            for byte, value in enumerate(bits):
                for bit in range(8):
                    if value & (1 << bit):
                        found.setdefault((below, byte * 8 + bit), []).append(name)
    for tests in found.values():
        tests.sort(key=lambda name: seconds.get(name.replace(".py::", "::").replace("::Test", ".Test"), 60.0))
    return found


def caught(fault: tuple[Path, int, int, int, str], tests: list[str], budget: float) -> str:
    """The test that failed, "" if none did; the file is as before afterwards."""
    path, _, start, end, new = fault
    text = path.read_bytes()
    path.write_bytes(text[:start] + new.encode() + text[end:])
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header", "-rf", "--no-cov"]
    try:
        done = subprocess.run([*command, *tests[:400]], cwd=ROOT, capture_output=True, text=True, timeout=budget)
    except subprocess.TimeoutExpired:
        return ""
    finally:
        path.write_bytes(text)
    if done.returncode == 0:
        return ""
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0].split(" - ")[0] if failed else f"pytest ended with {done.returncode}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coverage", type=Path, default=ROOT / ".coverage")
    parser.add_argument("--junit", type=Path, default=ROOT / "junit.xml")
    parser.add_argument("--faults", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", type=float, default=150.0, help="seconds of tests for one fault")
    asked = parser.parse_args()
    lines = tests_by_line(asked.coverage, asked.junit)
    faults = [fault for module in module_paths() for fault in faults_in(module)]
    random.Random(asked.seed).shuffle(faults)
    number = 0
    for path, line, start, end, new in faults[: asked.faults]:
        below = str(path.relative_to(ROOT))
        tests = lines.get((below, line), [])
        found = caught((path, line, start, end, new), tests, asked.budget) if tests else ""
        number += bool(found)
        old = path.read_bytes()[start:end].decode()
        print(
            f"{'caught' if found else 'MISSED'}  {below}:{line}  {old!r} -> {new!r}  {len(tests)} tests  {found}",
            flush=True,
        )
    print(f"{number} of {asked.faults} caught")


if __name__ == "__main__":
    main()
