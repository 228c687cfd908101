"""Which runs of two arms belong together: those that agree in everything that both are run with several values of."""

from collections.abc import Sequence

from radtransfer.studies.cells import Cell
from radtransfer.studies.study import side_arm

Keyed = Sequence[tuple[Cell, str]]
"""Cells, each with the key of its run."""


def paired_runs(cells: Keyed, one: str, other: str) -> list[tuple[str, str]]:
    """The keys of the runs that a comparison of two sides, ARM or ARM@initial, compares; every pair once."""
    first = [item for item in cells if item[0].arm == side_arm(one)]
    second = [item for item in cells if item[0].arm == side_arm(other)]
    pairs = [(a, b) for cell, a in first for against, b in second if belong_together(cell, against)]
    return list(dict.fromkeys(pairs))


def reference_run(cells: Keyed, cell: Cell, reference: str | None) -> str | None:
    """The key of the run of arm `reference` that `cell` is measured against; None if there is not exactly one."""
    keys = {key for other, key in cells if other.arm == reference and belong_together(other, cell)}
    return keys.pop() if len(keys) == 1 and not cell.is_source else None


def belong_together(one: Cell, other: Cell) -> bool:
    """Whether two runs have the same value of every axis that both of their arms vary."""
    shared = one.combination.keys() & other.combination.keys()
    return all(one.combination[name] == other.combination[name] for name in shared)
