import json
import shutil

import numpy as np
import pytest
from page_checks import check_page
from PIL import Image

from radtransfer.runs.folder import read_rows


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
    assert "note      a map of 3×3 positions is coarse: one position covers 8×8 of the 24×24 pixels" in outcome.out
    assert "--layer stem has 12×12" in outcome.out
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
    assert "Note: a map of 3×3 positions is coarse" in page.text
    overlays = sorted((out / "overlays").iterdir())
    assert len(overlays) == 5
    with Image.open(overlays[0]) as panel:
        assert panel.size == (3 * 288 + 16, 288)
    rows = read_rows(out / "explanations.csv")
    assert [row["overlay"] for row in rows] == [f"overlays/{item.name}" for item in overlays]


def test_the_terminal_says_how_many_images_it_does_not_name(radtransfer, finished_run, explained, tmp_path):
    arguments = ("--fold", 1, "--layer", "stage2", "--limit", 13, "--occlusion", 0, "--out", tmp_path / "sheet")
    outcome = radtransfer("explain", finished_run.path, *arguments)
    assert sum(line.endswith(".png") for line in outcome.out.splitlines()) == 10
    assert f"… and 3 more in {tmp_path / 'sheet' / 'explanations.csv'}" in outcome.out
    assert "more in" not in explained[1].out


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
    outcome = radtransfer(*arguments, "--data", other, "--overwrite")
    assert outcome.code == 3
    assert "Expected the classes of the network, sick, well" in outcome.err
    assert "cyst" in outcome.err


def test_a_model_of_several_labels_is_explained_by_the_label_it_is_most_wrong_about(radtransfer, tiny_images, tmp_path):
    from radtransfer.exports.formats import add_to_zip
    from radtransfer.models.backbone import BACKBONES
    from radtransfer.models.classifier import build_classifier

    labels, path, out = ["edema", "mass", "node"], tmp_path / "m.keras", tmp_path / "sheet"
    model = build_classifier(
        BACKBONES["cbr_tiny"], classes=3, image_size=24, activation="sigmoid", dropout=0.5, preprocessing="torch"
    ).model
    kernel, _ = model.get_layer("head").get_weights()
    model.get_layer("head").set_weights([1e-6 * kernel, np.array([2.0, -3.0, 0.5], np.float32)])
    model.save(path)
    add_to_zip(path, {"classes": labels, "task": "multilabel"})
    files = sorted((tiny_images / "images").rglob("*.png"))[:3]
    lines = [f"{file},{edema},{mass}," for file, (edema, mass) in zip(files, [(0, 0), (1, 1), (1, 0)], strict=True)]
    (tmp_path / "table.csv").write_text("\n".join(["path,edema,mass,node", *lines]) + "\n")
    table = ("--data", tmp_path / "table.csv", "--label-column", ",".join(labels), "--unmentioned", "ignore")
    outcome = radtransfer("explain", path, *table, "--layer", "stage1", "--occlusion", 2, "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    found = {item["path"]: item for item in json.loads(outcome.out)["explanations"]}
    said = [(found[str(file)]["predicted"], found[str(file)]["wrong"], found[str(file)]["label"]) for file in files]
    assert said == [
        ("edema", True, "none of the labels"),
        ("not mass", True, "edema; mass"),
        ("edema", False, "edema"),
    ]


def test_a_saved_model_is_refused_and_what_to_give_is_said(radtransfer, tiny_images, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").touch()
    outcome = radtransfer("explain", tmp_path / "model", "--data", tiny_images / "images", "--out", tmp_path / "sheet")
    assert outcome.code == 4
    assert "Give the run, or a .keras file: radtransfer export RUN --format keras." in outcome.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--fold", 1, "--layer", "stage9"), 2, "stage9"),
        (("--fold", 1, "--class", "cyst"), 2, "expected one of sick, well"),
        ((), 2, "Finished folds: 1, 2"),
        (("nowhere.png", "--fold", 1), 3, "No image at nowhere.png"),
    ],
)
def test_what_cannot_be_explained_is_told(radtransfer, finished_run, tmp_path, arguments, code, words):
    outcome = radtransfer("explain", finished_run.path, *arguments, "--out", tmp_path / "sheet")
    assert outcome.code == code, outcome.err
    assert words in outcome.err
    assert not (tmp_path / "sheet").exists()


@pytest.mark.parametrize("how", ["data", "files"])
def test_folders_and_tables_without_labels_are_explained(radtransfer, finished_run, tiny_images, tmp_path, how):
    for number, file in enumerate(sorted((tiny_images / "images").rglob("*.png"))[:4]):
        shutil.copy(file, tmp_path / f"{number}.png")
    (tmp_path / "table.csv").write_text("image\n0.png\n3.png\n")
    for source, count in ((tmp_path, 4), (tmp_path / "table.csv", 2)):
        images = ("--data", source) if how == "data" else (source,)
        options = ("--layer", "stage1", "--limit", 2, "--occlusion", 0, "--out", tmp_path / "out", "--overwrite")
        outcome = radtransfer("explain", finished_run.path / "fold_1", *images, *options, "--json")
        assert outcome.code == 0, outcome.err
        record = json.loads(outcome.out)
        assert record["images"] == count
        assert {item["wrong"] for item in record["explanations"]} == {None}
        shutil.rmtree(tmp_path / "out")
