"""A few kills of one run; `python tests/kill_harness.py --kills 100 --fork` and `-m slow` are the long forms."""

import os
import subprocess
import sys
from pathlib import Path

import kill_harness
import pytest
from kill_harness import Kill, Tally


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills")
    kill_harness.write_images(folder / "data", count=16)
    return folder


def test_a_run_killed_again_and_again_comes_to_the_identical_result(place, monkeypatch):
    monkeypatch.setenv("RADTRANSFER_CACHE", str(place / "cache"))
    job = kill_harness.jobs(place / "data", source=place / "source", epochs=2)["finetune"]
    kill_harness.run_undisturbed(job, place / "whole", kill_harness.start_warm)
    tally = Tally()
    # After best.npz and before history.csv; as the model is put in place; as the second fold is scored.
    kills = [Kill("SIGKILL", event=29), Kill("SIGTERM", event=40), Kill("SIGINT", event=35)]
    kill_harness.survive(job, place / "whole", place, kills, tally, start=kill_harness.start_warm)
    assert sum(tally.kills.values()) == len(kills)


def test_the_comparison_sees_a_changed_number(place):
    one, other = place / "one", place / "other"
    for folder in (one, other):
        (folder / "fold_1").mkdir(parents=True)
        (folder / "fold_1" / "history.csv").write_text("epoch,loss\n1,0.5\n")
    kill_harness.check_equal(one, other)
    (other / "fold_1" / "history.csv").write_text("epoch,loss\n1,0.50001\n")
    with pytest.raises(AssertionError, match="history.csv"):
        kill_harness.check_equal(one, other)
    (other / "fold_1" / "history.csv").write_text("epoch,loss\n1,")
    with pytest.raises(AssertionError, match="history.csv"):
        kill_harness.check_whole(other)


@pytest.mark.slow
def test_many_kills_at_random_moments():
    """`RADTRANSFER_KILLS` says how many."""
    script = Path(kill_harness.__file__)
    kills = os.environ.get("RADTRANSFER_KILLS", "60")
    subprocess.run([sys.executable, script, "--kills", kills, "--fork"], check=True)
