"""The same work on many items in threads; an interrupt ends it after the items in hand, not after all of them."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_BATCH = 16
"""Items per task of a worker."""

Item, Result = TypeVar("Item"), TypeVar("Result")


def in_parallel(
    work: Callable[[Item], Result], items: Sequence[Item], *, workers: int
) -> Generator[list[Result], None, None]:
    """What `work` gives for each item, in order, a batch at a time; whoever stops early closes the generator.

    Args:
        work: What it raises is raised here.
        items: Any number of them.
        workers: Threads.
    """
    batches = [items[start : start + _BATCH] for start in range(0, len(items), _BATCH)]
    executor = ThreadPoolExecutor(workers)
    try:
        yield from executor.map(lambda batch: [work(item) for item in batch], batches)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def all_in_parallel(work: Callable[[Item], Result], items: Sequence[Item], *, workers: int) -> list[Result]:
    """What `work` gives for each item, in order; see `in_parallel`."""
    return [result for batch in in_parallel(work, items, workers=workers) for result in batch]
