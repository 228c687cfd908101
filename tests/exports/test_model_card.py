import json
import re

import numpy as np
import pytest
import yaml
from run_files import write_run

from radtransfer.errors import RunError
from radtransfer.exports.metadata import Exported, export_metadata, model_card, read_facts, weight_terms


def make_run(folder, *, record=None, settings=None, label="sick", patients=True):
    """A run folder with all that a card is made from."""
    run = write_run(folder, folds=2, settings=settings or {})
    path = run / "run.json"
    values = json.loads(path.read_text()) | {
        "image_size": 64,
        "head": "softmax",
        "preprocessing": "caffe",
        "data": {"source": "/elsewhere/secret/thyroid/images.csv", "images": 120},
        "notes": ["120 images found by file name among the 130 in /elsewhere/secret/pictures"],
    }
    path.write_text(json.dumps(values | (record or {})))
    lines = ["path,label,patient,fold,split"]
    for fold in (1, 2):
        for number in range(120):
            split = "test" if number % 2 == fold - 1 else "val" if number % 10 > 7 else "train"
            name = label if number // 2 % 2 else "well"
            lines.append(f"image_{number:03d}.png,{name},{f'p{number // 2}' if patients else ''},{fold},{split}")
    (run / "folds.csv").write_text("\n".join(lines) + "\n")
    for fold in (1, 2):
        (run / f"fold_{fold}" / "model.keras").write_bytes(b"weights")
    document = yaml.safe_load((run / "config.yaml").read_text())
    document["data"] = {"source": "/elsewhere/secret/thyroid/images.csv", "image_root": "/elsewhere/secret/pictures"}
    (run / "config.yaml").write_text(yaml.safe_dump(document))
    return run


def card_of(run, fold=1, **arguments):
    return model_card(read_facts(run, fold), size=64, **arguments)


def test_the_card_says_what_the_files_of_the_run_say(tmp_path):
    run = make_run(tmp_path / "first")
    card, metrics = card_of(run), json.loads((run / "fold_1" / "metrics.json").read_text())
    overall = json.loads((run / "metrics.json").read_text())["auc"]
    assert "# Model card: resnet50, run first, fold 1" in card
    assert "not a medical device" in card
    assert re.search(rf"\| AUC \| {metrics['auc']:.3f} \| 0\.\d+ to [01]\.\d+ \|", card)
    assert f"{overall['mean']:.3f} ± {overall['sd']:.3f}" in card
    assert f"{overall['ci95'][0]:.3f} to {overall['ci95'][1]:.3f}" in card
    assert "| test | 60 | 60 | 30 | 30 |" in card
    assert "| stem | pretrained | yes | 1 |" in card
    assert "caffe (BGR minus the ImageNet mean" in card
    assert "imagenet. Published with Keras" in card
    assert "Check of this export" not in card


def test_the_interval_is_that_of_the_folds_own_test_images(tmp_path):
    facts = read_facts(make_run(tmp_path / "run"), 2)
    low, high = facts.summary["auc"]["ci95"]
    assert facts.summary["auc"]["pooled"] == pytest.approx(facts.metrics["auc"])
    assert low < facts.metrics["auc"] < high


def test_no_folder_of_the_machine_stands_in_card_or_metadata(tmp_path):
    facts = read_facts(make_run(tmp_path / "run"), 1)
    metadata = json.dumps(export_metadata(facts, size=64))
    for text in (model_card(facts, size=64), metadata):
        assert "secret" not in text.replace("secret/thyroid", "")
        assert "/elsewhere" not in text
        assert str(tmp_path) not in text
    assert "thyroid/images.csv" in metadata


def test_unknown_patients_few_images_and_leaks_are_limits(tmp_path):
    settings = {"data.allow_leakage": True}
    assert "no patient is in two sets" in card_of(make_run(tmp_path / "known"))
    card = card_of(make_run(tmp_path / "unknown", patients=False, settings=settings))
    assert "Patients were not known" in card
    assert "Fewer than 100 test images of well (30), sick (30)" in card


def test_names_that_are_markup_are_shown_as_they_are(tmp_path):
    card = card_of(make_run(tmp_path / "run", record={"backbone": "<script>|*x*"}))
    assert "<script>" not in card
    assert r"&lt;script&gt;\|\*x\*" in card
    rows = [line for line in card.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in rows[:4])


def test_no_field_of_a_run_adds_markup_to_the_card(tmp_path):
    evil = "![x](http://x)|`<script>`\n\n# head"
    record = {"backbone": evil, "head": evil, "weights": {"source": evil, "sha256": f"`{evil}"}, "notes": [evil]}
    card = card_of(make_run(tmp_path / "run", record=record, label="=<b>_x_</b>\\"))
    assert "<script>" not in re.sub("(`+) .*? \\1", "", card) and "<b>" not in card
    assert not re.search(r"(?<!\\)\]\(|^# head", re.sub("(`+) .*? \\1", "", card), re.MULTILINE)


def test_the_check_of_an_export_stands_at_the_end(tmp_path):
    check = Exported(tmp_path, tmp_path, 4_000_000, 2e-7, 3e-7, 8, "", "", "load(path)", None)
    card = card_of(make_run(tmp_path / "run"), check=check)
    assert (
        "differs from the run's model by at most 2e-07" in card and "decodes the files itself, by at most 3e-07" in card
    )
    assert card.rstrip().endswith("Use: `load(path)`")


def test_temperature_and_operating_point_of_the_metadata_stand_in_the_card(tmp_path):
    run = make_run(tmp_path / "run")
    limit = "Its probabilities are not calibrated"
    assert limit in card_of(run)
    point = {"rule": "youden", "thresholds": {"sick": 0.31}, "sensitivity": {"sick": 0.9}, "specificity": {"sick": 0.8}}
    card = card_of(run, values={"temperature": 1.5, "operating_point": point | {"n_images": 31}})
    assert "divide the logits by 1.5" in card
    assert "| sick | 0.31 | 0.900 | 0.800 |" in card
    assert "chosen on 31 validation images" in card
    assert "fitted on 12 validation images" in card and limit in card
    assert "end of the range" not in card
    assert "Temperature 0.05 is an end of the range" in card_of(run, values={"temperature": 0.05})


def test_the_terms_are_those_of_what_the_run_really_started_from(tmp_path):
    first = make_run(tmp_path / "first", record={"weights": {"source": "radimagenet", "file": "x.h5"}})
    again = {"source": "first/fold_1", "file": str(first / "fold_1" / "model.keras"), "sha256": "ab" * 32}
    found = weight_terms({"backbone": "resnet50", "weights": again})
    assert found.source == "first/fold_1"
    assert "started from radimagenet" in found.terms
    assert "data-use agreement" in found.terms
    assert "no terms of third parties" in weight_terms({"weights": {"source": "random"}}).terms
    other = {"backbone": "resnet50", "weights": {"source": "/a/b/mine.h5", "file": "/a/b/mine.h5"}}
    assert weight_terms(other).source == "mine.h5"
    assert "Not known" in weight_terms(other).terms


def test_weights_of_another_network_do_not_get_the_terms_of_a_file_of_the_same_name():
    weights = {"source": "/a/RadImageNet-ResNet50_notop.h5", "file": "/a/RadImageNet-ResNet50_notop.h5"}
    assert "data-use agreement" in weight_terms({"backbone": "resnet50", "weights": weights}).terms
    assert "Not known" in weight_terms({"backbone": "cbr_tiny", "weights": weights}).terms


def test_a_file_of_the_run_that_is_gone_is_named(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "folds.csv").unlink()
    with pytest.raises(RunError, match=r"folds\.csv"):
        card_of(run)


def test_metadata_is_plain_and_says_what_the_outputs_are(tmp_path):
    metadata = export_metadata(read_facts(make_run(tmp_path / "run"), 1), size=64)
    assert json.loads(json.dumps(metadata, allow_nan=False)) == metadata
    assert metadata["classes"] == ["well", "sick"]
    assert metadata["input"]["range"] == [0, 255]
    assert "EXIF" in metadata["input"]["caller"]
    assert np.isclose(metadata["provenance"]["test"]["auc"], 0.75, atol=0.2)


@pytest.mark.parametrize(
    ("settings", "origin", "said"),
    [({}, "assumed", True), ({}, "card", False), ({"model.preprocessing": "unit"}, "assumed", False)],
)
def test_a_scale_that_was_assumed_is_called_so(tmp_path, settings, origin, said):
    record = {"weights": {"source": "mine.h5", "preprocessing_from": origin}}
    card = model_card(read_facts(make_run(tmp_path / "run", record=record, settings=settings), 1), size=64)
    assert ("assumed from the network" in card) == said


def test_random_weights_bring_no_terms_of_their_own(tmp_path):
    card = model_card(read_facts(make_run(tmp_path / "run", record={"weights": {"source": "random"}}), 1), size=64)
    assert "The terms of the training images also apply to the model" in card
    assert "terms of these weights" not in card
