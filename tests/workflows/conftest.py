"""A tiny data set and the command line, for tests of whole jobs."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import warm_process
from click.testing import CliRunner
from PIL import Image

TINY = ("--backbone", "cbr_tiny", "--image-size", "24", "--batch-size", "8", "--learning-rate", "1e-3")


@pytest.fixture(scope="session")
def tiny_images(tmp_path_factory):
    """48 grey squares of 24 px from 24 patients: a folder with class sub-folders, and images.csv beside it."""
    folder = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(48):
        label = "sick" if i // 2 % 2 else "well"
        pixels = rng.integers(0, 120, (24, 24), np.uint8)
        if label == "sick":
            pixels[4:14, 6:16] += 100
        path = folder / "images" / label / f"p{i // 2:02d}_{i % 2}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        rows.append([f"{label}/{path.name}", label, f"p{i // 2:02d}"])
    with (folder / "images.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([["path", "label", "patient"], *rows])
    return folder


@pytest.fixture(scope="session")
def one_model_cache():
    """The runs of this process share their networks, as those of a study do: tracing costs more than their steps."""
    from radtransfer.training import context

    shared = context.ModelCache()

    class Shared(context.ModelCache):
        def __new__(cls, **options):
            return super().__new__(cls) if options else shared

        def __init__(self, **options):
            super().__init__(**options) if options else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(context, "ModelCache", Shared)
        yield


@pytest.fixture(scope="session", autouse=True)
def exports_are_read_in_forked_processes():
    """Fresh ones, which take seconds more, read those of the contract."""
    with pytest.MonkeyPatch.context() as patch:
        warm_process.read_exports_so(patch)
        yield


@pytest.fixture(scope="session")
def radtransfer(one_model_cache):
    """Run the command line in this process: `radtransfer("finetune", …)` gives exit code, stdout and stderr."""
    from radtransfer.cli.main import application

    def run(*arguments):
        outcome = CliRunner().invoke(application, [str(item) for item in arguments], prog_name="radtransfer")
        return SimpleNamespace(code=outcome.exit_code, out=outcome.stdout, err=outcome.stderr)

    return run


@pytest.fixture(scope="session")
def table_options(tiny_images):
    """The options that name the tiny data set and network."""
    return ("--data", tiny_images / "images.csv", "--image-root", tiny_images / "images", *TINY)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, radtransfer, table_options):
    """A run of two folds and two epochs; tests must not change it."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    outcome = radtransfer("finetune", *table_options, "--folds", 2, "--epochs", 2, "--out", out, "--json", "-v")
    assert outcome.code == 0, outcome.err
    return SimpleNamespace(path=out, metrics=json.loads(outcome.out), outcome=outcome)
