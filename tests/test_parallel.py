"""Work in threads: in order, and ended by an interrupt."""

import time

import pytest

from radtransfer.process import all_in_parallel, in_parallel

MANY = 4000


class Work:
    """Takes its time, counts, and is interrupted at item number `interrupt`."""

    def __init__(self, interrupt=None):
        self.done, self._interrupt = 0, interrupt

    def __call__(self, item):
        time.sleep(0.0005)
        self.done += 1
        if item == self._interrupt:
            raise KeyboardInterrupt


@pytest.mark.parametrize("workers", [1, 3])
def test_the_results_come_in_order(workers):
    assert all_in_parallel(lambda item: 2 * item, range(100), workers=workers) == list(range(0, 200, 2))
    assert all_in_parallel(abs, [], workers=workers) == []


def test_what_has_not_begun_is_dropped_at_an_interrupt():
    work = Work(interrupt=3)
    with pytest.raises(KeyboardInterrupt):
        all_in_parallel(work, range(MANY), workers=2)
    assert work.done < MANY / 2


def test_a_consumer_that_stops_ends_the_work():
    work = Work()
    batches = in_parallel(work, range(MANY), workers=1)
    next(batches)
    batches.close()
    assert work.done < MANY / 2
