import json
import shutil

import pytest
from page_checks import check_page
from PIL import Image

from radtransfer.runs import read_rows


@pytest.fixture(scope="module")
def explained(tmp_path_factory, radtransfer, finished_run):
    """The explanations of fold 1, and what was printed."""
    out = tmp_path_factory.mktemp("explained") / "sheet"
    arguments = ("--fold", 1, "--layer", "stage2", "--limit", 5, "--occlusion", 3, "--out", out)
    return out, radtransfer("explain", finished_run.path, *arguments)


def test_the_runs_own_test_images_are_explained_mistakes_first(explained, finished_run):
    out, outcome = explained
    assert outcome.code == 0, outcome.err
    assert "pool3 (stage2), a map of 3×3" in outcome.out
    assert "median of" in outcome.out
    assert "head" in outcome.out
    record = json.loads((out / "explanations.json").read_text())
    lines = read_rows(finished_run.path / "fold_1" / "predictions.csv")
    tested = [row for row in lines if row["split"] == "test"]
    wrong = [row for row in tested if row["label"] != max(("sick", "well"), key=lambda name: float(row[f"p_{name}"]))]
    assert (record["images"], record["mistakes"]) == (len(tested), len(wrong))
    states = [item["wrong"] for item in record["explanations"]]
    assert states == sorted(states, reverse=True)
    probability = {row["path"]: float(row["p_sick"]) for row in tested}
    for item in record["explanations"]:
        expected = probability[item["path"]] if item["predicted"] == "sick" else 1 - probability[item["path"]]
        assert item["probability"] == pytest.approx(expected, abs=1e-5)


def test_the_page_needs_nothing_else_and_the_overlays_are_there(explained):
    out, _ = explained
    page = check_page((out / "sheet.html").read_text())
    assert len(page.images) == 15
    assert "not a medical device" in page.text
    overlays = sorted((out / "overlays").iterdir())
    assert len(overlays) == 5
    with Image.open(overlays[0]) as overlay:
        assert overlay.size == (3 * 288 + 16, 288)
    rows = read_rows(out / "explanations.csv")
    assert [row["overlay"] for row in rows] == [f"overlays/{item.name}" for item in overlays]


def test_an_exported_model_explains_files_with_names_that_are_markup(radtransfer, finished_run, tiny_images, tmp_path):
    exported = radtransfer("export", finished_run.path / "fold_2", "--format", "keras", "--out", tmp_path / "m.keras")
    assert exported.code == 0, exported.err
    file = tmp_path / '<img src=x onerror="alert(1)">&.png'
    shutil.copy(next((tiny_images / "images").rglob("*.png")), file)
    out = tmp_path / "sheet"
    arguments = (tmp_path / "m.keras", file, "--occlusion", 0, "--class", "sick", "--layer", "stage1", "--out", out)
    outcome = radtransfer("explain", *arguments, "--json")
    assert outcome.code == 0, outcome.err
    record = json.loads(outcome.out)
    assert record["occlusion_agreement"] is None
    assert record["explanations"][0]["predicted"] in ("sick", "well")
    assert record["explanations"][0]["wrong"] is None
    page = check_page((out / "sheet.html").read_text())
    assert len(page.images) == 2
    assert "onerror" in page.text
    assert [item.name for item in (out / "overlays").iterdir()] == ["001_img_src_x_onerror_alert_1.png"]


def test_data_with_labels_is_matched_by_name(radtransfer, finished_run, tiny_images, tmp_path):
    run, out = finished_run.path / "fold_1", tmp_path / "sheet"
    arguments = ("explain", run, "--layer", "stage1", "--limit", 2, "--occlusion", 2, "--out", out, "--json")
    outcome = radtransfer(*arguments, "--data", tiny_images / "images")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["images"] == 48
    other = tmp_path / "other"
    shutil.copytree(tiny_images / "images" / "well", other / "well")
    shutil.copytree(tiny_images / "images" / "sick", other / "cyst")
    outcome = radtransfer(*arguments, "--data", other)
    assert outcome.code == 3
    assert "knows the classes sick, well" in outcome.err
    assert "cyst" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--fold", 1, "--layer", "stage9"), 2, "stage9"),
        (("--fold", 1, "--class", "cyst"), 2, "expected one of sick, well"),
        ((), 2, "Finished folds: 1, 2"),
        (("nowhere.png", "--fold", 1), 3, "Not found: nowhere.png"),
    ],
)
def test_what_cannot_be_explained_is_told(radtransfer, finished_run, tmp_path, arguments, code, words):
    outcome = radtransfer("explain", finished_run.path, *arguments, "--out", tmp_path / "sheet")
    assert outcome.code == code, outcome.err
    assert words in outcome.err
    assert not (tmp_path / "sheet").exists()
