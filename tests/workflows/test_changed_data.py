"""Whatever judges a run says when its images or labels are not what they were."""

import shutil

import pytest

from radtransfer.yaml_text import read_yaml, write_yaml


@pytest.fixture(scope="module")
def relabelled(finished_run, tiny_images, tmp_path_factory):
    """The finished run, the first image of whose table has got the other label since."""
    folder = tmp_path_factory.mktemp("relabelled")
    run = shutil.copytree(finished_run.path, folder / "run")
    header, first, *rows = (tiny_images / "images.csv").read_text().splitlines()
    path, label, patient = first.split(",")
    (folder / "images.csv").write_text(
        "\n".join([header, f"{path},{'well' if label == 'sick' else 'sick'},{patient}", *rows])
    )
    settings, _ = read_yaml(run / "config.yaml")
    settings["data"]["source"] = str(folder / "images.csv")
    (run / "config.yaml").write_text(write_yaml(settings))
    return run


@pytest.mark.parametrize("command", ["evaluate", "evaluate --data", "compare-weights", "compare-predictions"])
def test_a_changed_label_is_told(radtransfer, relabelled, finished_run, tiny_images, command):
    name, *data = command.split()
    other = ("--data", tiny_images / "images", "--draws", 100) if data else ()
    other = (finished_run.path,) if name.startswith("compare") else other
    outcome = radtransfer(name, relabelled, *other)
    assert outcome.code == 0, outcome.err
    assert f"the data of {relabelled} has changed: the label of 1 images" in outcome.err
    assert f"the data of {finished_run.path} has changed" not in outcome.err
