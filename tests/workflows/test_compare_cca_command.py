import csv
import json
from shutil import copy, copytree

import keras
import numpy as np
import pytest

STAGES = ["stem", "stage1", "stage2", "stage3"]
SMALL = ("--dims", 6, "--rows", 300, "--repeats", 2)
KEYS = ["layer", "kind", "similarity", "ci95", "null", "rank_a", "rank_b", "rows", "images", "dims", "repeats"]


@pytest.fixture(scope="module")
def compared(radtransfer, finished_run, tmp_path_factory):
    """Both kinds, crossed, of one fold before and after training."""
    out = tmp_path_factory.mktemp("compared") / "out"
    names = (f"{finished_run.path}/fold_1@initial", f"{finished_run.path}/fold_1@final")
    arguments = (*SMALL, "--similarity", "cca,cka", "--cross", "--out", out, "--json")
    outcome = radtransfer("compare-cca", *names, *arguments)
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out), out, outcome.err


def test_there_is_an_entry_per_layer_and_kind_with_the_promised_keys(compared):
    layers = compared[0]["layers"]
    assert [(entry["layer"], entry["kind"]) for entry in layers] == [(s, k) for s in STAGES for k in ("cca", "cka")]
    for entry in layers:
        assert list(entry) == KEYS
        assert set(entry["null"]) == {"closed_form", "permuted"}
        assert entry["ci95"][0] < entry["similarity"] < entry["ci95"][1]
        assert entry["null"]["permuted"] < entry["similarity"] < 1
        assert (entry["images"], entry["dims"], entry["repeats"]) == (24, 6, 2)


def test_a_layer_with_few_positions_reports_the_true_number_and_says_so(compared):
    rows = {entry["layer"]: entry["rows"] for entry in compared[0]["layers"]}
    assert rows == {"stem": 300, "stage1": 300, "stage2": 216, "stage3": 96}
    assert "stage2: only 216 positions instead of 300 rows" in compared[2]


def test_rows_that_make_any_layers_look_alike_are_warned_of(radtransfer, finished_run):
    names = (f"{finished_run.path}/fold_1@initial", finished_run.path)
    outcome = radtransfer("compare-cca", *names, *SMALL, "--dims", 12, "--layers", "stem,stage3")
    assert outcome.code == 0, outcome.err
    assert "stage3: with 96 rows for 24 channels, any layers look similar; use 120 rows" in outcome.err
    assert "stem: 300 rows" not in outcome.err


def test_what_is_found_does_not_depend_on_the_batch_size(radtransfer, finished_run, compared, monkeypatch):
    from radtransfer.models.activations import FeatureMaps

    monkeypatch.setattr(FeatureMaps, "batch_size", 5)
    names = (f"{finished_run.path}/fold_1@initial", f"{finished_run.path}/fold_1@final")
    outcome = radtransfer("compare-cca", *names, *SMALL, "--similarity", "cca,cka", "--json")
    for entry, whole in zip(json.loads(outcome.out)["layers"], compared[0]["layers"], strict=True):
        # Float32 convolutions of other batches differ in their last digit; the sums do not.
        assert entry["similarity"] == pytest.approx(whole["similarity"], abs=1e-5)
        assert entry["ci95"] == pytest.approx(whole["ci95"], abs=1e-4)
        assert entry["null"]["permuted"] == pytest.approx(whole["null"]["permuted"], abs=1e-5)


def test_shared_statistics_leave_what_the_weights_changed(radtransfer, finished_run, tmp_path):
    model = keras.models.load_model(finished_run.path / "fold_1" / "model.keras")
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(layer.moving_mean + 0.7)
    model.save(tmp_path / "shifted.keras")
    arguments = (finished_run.path / "fold_1", tmp_path / "shifted.keras", *SMALL, "--layers", "stage1", "--json")
    values = []
    for choice in ("own", "shared"):
        outcome = radtransfer("compare-cca", *arguments, "--batch-norm", choice)
        assert outcome.code == 0, outcome.err
        values.append(json.loads(outcome.out)["layers"][0]["similarity"])
    assert values[0] < 0.99
    assert values[1] == pytest.approx(1, abs=1e-6)


def test_the_diagonal_of_the_cross_is_what_the_layers_say(compared):
    result = compared[0]
    for kind in ("cca", "cka"):
        alone = [entry["similarity"] for entry in result["layers"] if entry["kind"] == kind]
        assert np.diag(result["cross"][kind]) == pytest.approx(alone, abs=1e-12)
    assert result["cross"]["layers"] == STAGES


def test_all_that_decides_the_numbers_is_recorded(compared):
    settings = compared[0]["settings"]
    assert settings["layers"]["stem"] == ["pool1", "pool1"]
    assert (settings["seed"], len(set(settings["seeds"]))) == (0, 2)
    assert (settings["sampling"], settings["channels"]) == ("spread", "auto")
    assert (settings["folds"], settings["image_size"], settings["preprocessing"]) == ([1], [24, 24], ["torch", "torch"])


def test_the_folder_holds_table_json_and_figures(compared):
    result, out, _ = compared
    names = {"similarity.csv", "similarity.json", "similarity.png", "cross_cca.png", "cross_cka.png"}
    assert {path.name for path in out.iterdir()} == names
    assert json.loads((out / "similarity.json").read_text()) == result
    with (out / "similarity.csv").open(newline="") as handle:
        lines = list(csv.DictReader(handle))
    assert [float(line["similarity"]) for line in lines] == [entry["similarity"] for entry in result["layers"]]
    assert [float(line["ci95_low"]) for line in lines] == [entry["ci95"][0] for entry in result["layers"]]


def test_a_run_compared_with_itself_is_identical_in_every_fold(radtransfer, finished_run):
    outcome = radtransfer("compare-cca", finished_run.path, f"{finished_run.path}@final", *SMALL, "--json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert result["settings"]["folds"] == [1, 2]
    assert [entry["similarity"] for entry in result["layers"]] == pytest.approx([1] * 4, abs=1e-6)


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(radtransfer, finished_run):
    def values(seed):
        arguments = (*SMALL, "--layers", "stem", "--seed", seed, "--json")
        outcome = radtransfer("compare-cca", f"{finished_run.path}/fold_1", "random:cbr_tiny", *arguments)
        assert outcome.code == 0, outcome.err
        return [entry["similarity"] for entry in json.loads(outcome.out)["layers"]]

    assert values(1) == values(1)
    assert values(1) != values(2)


def test_networks_of_other_sizes_and_kinds_share_rows(radtransfer, finished_run, tiny_images, tmp_path):
    weights = tmp_path / "fold.weights.h5"
    keras.models.load_model(finished_run.path / "fold_1" / "model.keras").save_weights(weights)
    names = (weights, "random:cbr_small", "--backbone", "cbr_tiny", "--image-size", 32)
    where = ("--data", tiny_images / "images.csv", "--image-root", tiny_images / "images")
    outcome = radtransfer("compare-cca", *names, *where, *SMALL, "--layers", "stage1,conv2", "--json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert [entry["layer"] for entry in result["layers"]] == ["stage1", "conv2"]
    assert result["layers"][0]["images"] == 48
    outcome = radtransfer("compare-cca", f"{finished_run.path}/fold_1", "random:cbr_large_t", *SMALL, "--json")
    assert [entry["layer"] for entry in json.loads(outcome.out)["layers"]] == STAGES


def test_a_keras_file_is_compared_on_given_images(radtransfer, finished_run, tiny_images):
    model = finished_run.path / "fold_2" / "model.keras"
    where = ("--data", tiny_images / "images.csv", "--image-root", tiny_images / "images")
    outcome = radtransfer(
        "compare-cca", model, finished_run.path / "fold_2", *where, *SMALL, "--layers", "all", "--json"
    )
    assert outcome.code == 0, outcome.err
    layers = json.loads(outcome.out)["layers"]
    assert {"conv1", "pool4"} <= {entry["layer"] for entry in layers}
    assert [entry["similarity"] for entry in layers] == pytest.approx([1] * len(layers), abs=1e-6)


def test_juodelyte_takes_whole_images_and_the_same_channels(radtransfer, finished_run):
    run = f"{finished_run.path}/fold_1"
    arguments = ("--compat", "juodelyte", "--rows", 300, "--dims", 6, "--repeats", 2, "--layers", "stem", "--json")
    outcome = radtransfer("compare-cca", f"{run}@initial", run, *arguments)
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert (result["settings"]["sampling"], result["settings"]["channels"]) == ("transfusion", "paired")
    (entry,) = result["layers"]
    assert (entry["images"], entry["rows"], entry["ci95"]) == (2, 288, None)


def test_the_table_shows_similarity_interval_chance_ranks_rows_and_images(radtransfer, finished_run):
    outcome = radtransfer("compare-cca", f"{finished_run.path}@initial", finished_run.path, *SMALL)
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0].split() == [
        "layer",
        "kind",
        "similarity",
        "95",
        "%",
        "interval",
        "chance",
        "ranks",
        "rows",
        "images",
    ]
    assert len(lines) == 6
    assert "mean over 2 folds" in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("RUN@initial", "nowhere"), 4, ("nowhere", "random:NAME")),
        (("RUN", "random:resnet5"), 2, ("resnet50",)),
        (("RUN", "elsewhere@initial"), 2, ("run.json",)),
        (("RUN/fold_7", "RUN"), 2, ("fold 7 is not finished", "1, 2")),
        (("RUN", "RUN@initial", "--fold", 9), 2, ("fold 9", "1, 2")),
        (("RUN", "RUN", "--similarity", "pcca"), 2, ("pwcca",)),
        (("RUN", "RUN", "--similarity", ""), 2, ("at least one --similarity", "pwcca")),
        (("RUN", "RUN", "--similarity", "rsa"), 2, ("rsa", "cannot be streamed")),
        (("RUN", "RUN", "--layers", ","), 2, ("--layers", "stages")),
        (("RUN", "RUN", "--layers", "stage9"), 2, ("stage9", "stage3")),
        (("RUN", "random:cbr_large_w", "--channels", "paired"), 3, ("stem", "32 and 64")),
        (("random:cbr_tiny", "random:cbr_tiny"), 2, ("--data",)),
        (("RUN", "RUN", "--compat", "juodelyte", "--similarity", "cka"), 2, ("expects --similarity cca",)),
        (("RUN", "RUN", "--compat", "juodelyte", "--channels", "all"), 2, ("leave them out",)),
        (("RUN", "RUN", "--out", "RUN"), 2, ("Choose another",)),
        (("RUN", "RUN", "--out", "RUN/config.yaml/out"), 2, ("cannot create a folder in", "config.yaml")),
    ],
)
def test_what_cannot_be_compared_is_said_with_its_exit_code(radtransfer, finished_run, arguments, code, words):
    arguments = [str(item).replace("RUN", str(finished_run.path)) for item in arguments]
    outcome = radtransfer("compare-cca", *arguments)
    assert outcome.code == code, outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.out == ""
    for word in words:
        assert word in outcome.err


@pytest.mark.parametrize(
    ("name", "moment"),
    [("fold_1/model.keras", ""), ("fold_1/initial.weights.h5", "@initial"), ("folds.csv", ""), ("config.yaml", "")],
)
def test_a_run_that_lacks_a_file_is_an_error_that_names_it(radtransfer, finished_run, tmp_path, name, moment):
    part = copytree(finished_run.path, tmp_path / "part")
    (part / name).unlink()
    outcome = radtransfer("compare-cca", f"{part}{moment}", finished_run.path, *SMALL)
    assert (outcome.code, outcome.out) == (2, "")
    assert f"lacks {name}" in outcome.err


@pytest.mark.parametrize("shape", [(24, 24, 1), (24, 30, 3)])
def test_a_network_that_cannot_be_given_the_images_is_an_error(radtransfer, finished_run, tmp_path, shape):
    image = keras.Input(shape)
    keras.Model(image, keras.layers.Conv2D(8, 3, name="conv1")(image)).save(tmp_path / "other.keras")
    outcome = radtransfer("compare-cca", f"{finished_run.path}/fold_1", tmp_path / "other.keras", "--layers", "conv1")
    assert outcome.code == 4, outcome.err
    assert f"24 x {shape[1]} x {shape[2]}" in outcome.err


def test_layers_with_too_few_rows_are_left_out_and_say_how_many_images_would_do(radtransfer, finished_run):
    names = (f"{finished_run.path}/fold_1@initial", f"{finished_run.path}/fold_1", "--repeats", 1, "--dims", 64)
    outcome = radtransfer("compare-cca", *names, "--similarity", "cca,cka", "--cross", "--json")
    assert outcome.code == 0, outcome.err
    few = "stage2: expected at least 256 rows for 128 channels, received 216 from 24 images"
    assert f"left out (cca): {few}" in outcome.err and "Use 29 images" in outcome.err
    result = json.loads(outcome.out)
    assert len(result["left_out"]) == 2 and few in result["left_out"][0]
    defined = {(e["layer"], e["kind"]) for e in result["layers"] if e["similarity"] is not None}
    assert defined == {("stem", "cca"), ("stage1", "cca"), *((stage, "cka") for stage in STAGES)}
    # The rows of a pair are those of the smaller map: 216 do for stem and stage2, which have 96 channels.
    assert [value is None for value in result["cross"]["cca"][2]] == [False, True, True, True]
    assert None not in sum(result["cross"]["cka"], [])
    outcome = radtransfer("compare-cca", *names, "--layers", "stage2,stage3")
    assert (outcome.code, outcome.out) == (3, "")
    assert few in outcome.err


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (lambda kernel: 0 * kernel, (), "conv2 of B (conv2): expected at least one channel that varies"),
        (lambda kernel: kernel * np.nan, (), "conv2 of B (conv2): expected finite activations"),
        (lambda kernel: kernel, ("--channels", "paired"), "conv2: --channels paired expects as many channels"),
    ],
    ids=["constant", "not finite", "unequal"],
)
def test_a_layer_that_cannot_be_computed_leaves_the_others(radtransfer, finished_run, tmp_path, change, options, words):
    image = keras.Input((24, 24, 3))
    x = keras.layers.Conv2D(32, 3, name="conv1")(image)
    model = keras.Model(image, keras.layers.Conv2D(7, 3, name="conv2")(x))
    model.get_layer("conv2").set_weights([change(array) for array in model.get_layer("conv2").get_weights()])
    model.save(tmp_path / "other.keras")
    names = (f"{finished_run.path}/fold_1", tmp_path / "other.keras", *SMALL, "--layers", "conv1,conv2", *options)
    outcome = radtransfer("compare-cca", *names, "--json")
    assert outcome.code == 0, outcome.err
    low, high = json.loads(outcome.out)["layers"]
    assert (low["layer"], high["layer"], high["similarity"]) == ("conv1", "conv2", None)
    assert 0 < low["similarity"] < 1
    assert f"left out (cca): {words}" in outcome.err


def test_procrustes_on_fewer_rows_than_channels_gives_its_chance_and_warns(radtransfer, finished_run):
    names = (f"{finished_run.path}/fold_1", "random:cbr_tiny", "--layers", "stem,stage3", "--repeats", 1)
    measures = ("--similarity", "procrustes,cka_biased", "--rows", 300, "--channels", "all")
    outcome = radtransfer("compare-cca", *names, *measures, "--json")
    assert outcome.code == 0, outcome.err
    assert "stage3: with 96 rows for" in outcome.err and "channels, any layers look similar" in outcome.err
    for entry in json.loads(outcome.out)["layers"]:
        assert 0 < entry["null"]["closed_form"] < 1
        assert entry["null"]["closed_form"] < entry["null"]["permuted"] + 0.05
    outcome = radtransfer("compare-cca", *names, *measures)
    assert "n/a /" not in outcome.out


def test_pairs_of_runs_are_grouped_by_their_plans_and_related_layer_by_layer(radtransfer, finished_run, tmp_path):
    other = copytree(finished_run.path, tmp_path / "other")
    record = json.loads((other / "run.json").read_text())
    for stage in record["plan"]["stages"]:
        stage["starts_from"] = "pretrained"
    (other / "run.json").write_text(json.dumps(record))
    runs = [finished_run.path / "fold_1", finished_run.path / "fold_2", other / "fold_1"]
    out = tmp_path / "out"
    arguments = ("--pairs", *runs, *SMALL, "--layers", "stem,stage1,stage2", "--out", out)
    outcome = radtransfer("compare-cca", *arguments, "--json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert [pair["starts"] for pair in result["pairs"]] == ["random × random"] * 3 + ["pretrained × random"] * 6
    groups = {(group["starts"], group["layer"]): group for group in result["groups"]}
    layers = ["stem", "stage1", "stage2", "top two"]
    assert list(groups) == [
        (starts, layer) for starts in ("random × random", "pretrained × random") for layer in layers
    ]
    mixed = np.array([[p["initial"], p["final"]] for p in result["pairs"][3:]])
    assert mixed[:3] == pytest.approx(1, abs=1e-6)
    assert groups["pretrained × random", "stem"]["pairs"] == 2
    assert groups["pretrained × random", "stem"]["final"] == pytest.approx(mixed[[0, 3], 1].mean())
    assert groups["pretrained × random", "stem"]["sd"] == pytest.approx(mixed[[0, 3], 1].std(ddof=1))
    assert groups["pretrained × random", "top two"]["final"] == pytest.approx(mixed[[1, 2, 4, 5], 1].mean())
    for pair in result["pairs"]:
        assert np.mean(pair["points"], axis=0) == pytest.approx([pair["initial"], pair["final"]])
    points = np.concatenate([p["points"] for p in result["pairs"][3:] if p["layer"] == "stage1"])
    stage1 = groups["pretrained × random", "stage1"]
    assert (stage1["n_points"], len(points)) == (4, 4)
    assert stage1["r_squared"] == pytest.approx(np.corrcoef(points.T)[0, 1] ** 2)
    # Leaving a run out leaves two points: nothing can be told of other runs.
    assert stage1["r_squared_ci95"] == [0, 1]
    assert groups["random × random", "stem"]["r_squared"] is None
    names = {"pairs.csv", "groups.csv", "population.json", "groups_cca.png", "training_cca.png"}
    assert {path.name for path in out.iterdir()} == names
    with (out / "groups.csv").open(newline="") as handle:
        lines = {(line["starts"], line["layer"]): line for line in csv.DictReader(handle)}
    assert float(lines["pretrained × random", "stage1"]["r_squared_ci95_high"]) == 1
    assert lines["pretrained × random", "top two"]["r_squared_ci95_high"] == ""


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        (("RUN", "RUN/fold_2"), "share a fold"),
        (("RUN", "RUN/"), "share a fold"),
        (("RUN", "RUN", "--cross"), "--cross"),
    ],
)
def test_pairs_that_make_no_sense_are_refused(radtransfer, finished_run, runs, words):
    outcome = radtransfer("compare-cca", "--pairs", *(item.replace("RUN", str(finished_run.path)) for item in runs))
    assert (outcome.code, outcome.out) == (2, "")
    assert words in outcome.err


def test_two_networks_or_pairs_are_asked_for(radtransfer, finished_run):
    outcome = radtransfer("compare-cca", *[finished_run.path] * 3)
    assert (outcome.code, outcome.out) == (2, "")
    assert "--pairs" in outcome.err
    outcome = radtransfer("compare-cca", "--pairs", finished_run.path)
    assert outcome.code == 2
    assert "at least two different runs" in outcome.err


def test_images_are_compared_on_without_labels_and_patients_still_count(radtransfer, tiny_images, tmp_path):
    files = sorted((tiny_images / "images").rglob("*.png"))[:12]
    for file in files:
        copy(file, tmp_path / file.name)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "photo.heic").write_bytes(b"x")
    table = tmp_path / "table.csv"
    table.write_text("path\n" + "".join(f"{file.name}\n" for file in files))
    arguments = ("compare-cca", "random:cbr_tiny", "random:cbr_small", "--image-size", 24, *SMALL, "--layers", "conv1")

    def compared(*data):
        given = [option for item in data for option in ("--data", item)]
        outcome = radtransfer(*arguments, *given, "--json")
        assert outcome.code == 0, outcome.err
        return json.loads(outcome.out)["layers"][0], outcome.err

    folder, noted = compared(tmp_path)
    assert "1 HEIC not read" in noted
    listed, _ = compared(table)
    one_by_one, _ = compared(*(tmp_path / file.name for file in files))
    assert folder["images"] == 12
    assert folder["similarity"] == listed["similarity"] == one_by_one["similarity"]
    rows = "".join(f"{file.name},{number // 4}\n" for number, file in enumerate(files))
    table.write_text("path,patient\n" + rows)
    by_patient, _ = compared(table)
    assert by_patient["similarity"] == pytest.approx(listed["similarity"], abs=0.2)
    assert by_patient["ci95"] != listed["ci95"]


def test_a_table_of_images_is_read_as_its_options_say(radtransfer, tiny_images, tmp_path):
    names = sorted(path.name for path in (tiny_images / "images").rglob("*.png"))[:12]
    rows = "".join(f"{name},{number // 2}\n" for number, name in enumerate(names))
    (tmp_path / "scans.csv").write_text(f"scan,who\n{rows}".replace(",1\n", ",01\n", 1))
    command = ("compare-cca", "random:cbr_tiny", "random:cbr_tiny", *SMALL, "--image-size", 64, "--layers", "stem")
    given = ("--data", tmp_path / "scans.csv", "--image-root", tiny_images / "images", "--path-column", "scan")
    assert radtransfer(*command, *given).code == 0
    outcome = radtransfer(*command, *given, "--patient-column", "who")
    assert outcome.code == 3 and "1 patient has several spellings in column 'who'" in outcome.err
    outcome = radtransfer(*command, *given, "--patient-column", "who", "--allow-alike-patients", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["layers"][0]["images"] == 12
