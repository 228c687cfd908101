"""Test images that the weights have seen: a run that starts from another run on the same images."""

from collections.abc import Iterator, Sequence

from radtransfer.config import load_config
from radtransfer.datasets import read_table
from radtransfer.datasets.image_table import ImageTable
from radtransfer.errors import RadtransferError, RunError
from radtransfer.run_reading import reading
from radtransfer.runs import find_fold, read_folds
from radtransfer.splits.folds import Fold
from radtransfer.splits.leaks import LEAK, image_identities


def source_leaks(weights: str, table: ImageTable, folds: Sequence[Fold]) -> Iterator[str]:
    """A sentence for each fold some of whose test images trained the run that `weights` names."""
    for fold, leaked in leaked_images(weights, table, folds):
        yield (
            f"{LEAK}in fold {fold.number}, {len(leaked)} of {(fold.split == 'test').sum()} test images trained or "
            f"chose the weights of {weights} (e.g. {table.paths[leaked[0]]}); its AUC is too high. Start from "
            "a run on other images"
        )


def leaked_images(weights: str, table: ImageTable, folds: Sequence[Fold]) -> Iterator[tuple[Fold, list[int]]]:
    """Each fold some of whose test images trained the run that `weights` names, and their rows in `table`.

    Weights that are no run, and runs whose images cannot be found any more, give none.
    """
    try:
        run, number = find_fold(weights)
        source = read_table(load_config(str(run / "config.yaml")).data)
    except (RunError, RadtransferError):
        return
    with reading(run):
        rows = [row for row in read_folds(run) if int(row["fold"]) == number]
        trained = {row["path"] for row in rows if row["split"] != "test"}
    identities = zip(source.paths, image_identities(source), strict=True)
    seen = {identity for path, identity in identities if path in trained}
    mine = image_identities(table)
    for fold in folds:
        leaked = [row for row, split in enumerate(fold.split) if split == "test" and mine[row] in seen]
        if leaked:
            yield fold, leaked
