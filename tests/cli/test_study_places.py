import sys

import pytest
from click.testing import CliRunner

from radtransfer.cli.main import application
from radtransfer.studies.engines import Places


def study(folder, *options):
    arguments = ["study", "quick-advice", "--out", str(folder / "out"), "--runs", str(folder / "store"), *options]
    return CliRunner().invoke(application, arguments)


@pytest.mark.parametrize("module", ["ray", "ray.exceptions"])
def test_without_ray_nothing_is_done(tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    outcome = study(tmp_path, "--ray")
    assert outcome.exit_code == 2
    assert outcome.stderr.startswith("Error: --ray needs Ray, which cannot be imported")
    assert outcome.stderr.endswith("Install it: pip install 'radtransfer[ray]'\n")
    assert outcome.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpus-per-run", "1"], "--gpus-per-run needs --ray"),
        (["--jobs", "0", "--ray"], "--jobs 0 is this process"),
        (["--jobs", "0", "--cpus-per-run", "1"], "--cpus-per-run needs runs in processes of their own"),
    ],
)
def test_places_that_do_not_go_together(tmp_path, options, message):
    outcome = study(tmp_path, *options)
    assert outcome.exit_code == 2
    assert message in outcome.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (Places(None, None, None, None), "--jobs 0"),
        (Places(0, None, None, None), "--jobs 0"),
        (Places(2, None, 4, None), "--jobs 2 --cpus-per-run 4"),
        (Places(None, "", None, None), "--ray"),
        (Places(None, "head:6379", 4, 0.5), "--cpus-per-run 4 --gpus-per-run 0.5 --ray head:6379"),
        (Places(64, "", None, 1.0), "--jobs 64 --gpus-per-run 1 --ray"),
    ],
)
def test_places_are_typed_again(places, words):
    assert " ".join(places.words()) == words
