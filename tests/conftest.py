"""Fixtures that the whole suite shares."""

import os
import signal
from pathlib import Path

import pytest

from radtransfer.process import pin_variables

pin_variables()
# More threads only wait for each other on matrices as small as these.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it runs in the background so, and the commands that tests interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images and weights beside the checkout; tests that need them are skipped without."""
    folder = Path(os.environ.get("RADTRANSFER_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set RADTRANSFER_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def busi(shared_data: Path) -> Path:
    """Breast ultrasound images with their published folds."""
    return shared_data / "busi"
