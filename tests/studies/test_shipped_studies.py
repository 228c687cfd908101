"""The shipped studies from outside: other weights, input scales and data, and what these make of each arm."""

import csv

import pytest

from radtransfer.config.load import load_config, shipped_configs
from radtransfer.data.readers import drop_unfit_settings, read_table
from radtransfer.errors import RadtransferError
from radtransfer.process import Progress
from radtransfer.studies.file import is_study, load_study, study_text
from radtransfer.studies.grid import plan_study
from radtransfer.studies.runs import with_absolute_paths
from radtransfer.studies.study import study_cells
from radtransfer.training.address import address, run_identity

STUDIES = [name for name in shipped_configs() if is_study(name)]

CONTROLS = {"random", "scratch", "small", "gabor", "slim", "random_features"}
"""Arms that start from random weights, whatever is transferred."""

OWN_WEIGHTS = {"radimagenet": "radimagenet", "source": "source:natural"}
"""What the names of other arms that name their weights begin with, and these weights."""


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def write_table(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as handle:
        csv.writer(handle).writerows(rows)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Small trees of the data sets that the studies name; the image files are empty."""
    root = tmp_path_factory.mktemp("data")
    eyes = [f"{patient}_{eye}" for patient in range(20) for eye in ("left", "right")]
    write_table(
        root / "eyepacs/trainLabels.csv", ["image", "level"], *([eye, i // 2 % 5] for i, eye in enumerate(eyes))
    )
    codes = [f"{i * 99991:010x}ab" for i in range(20)]
    write_table(root / "aptos/train.csv", ["id_code", "diagnosis"], *([code, i % 5] for i, code in enumerate(codes)))
    files = [f"eyepacs/train/{eye}.jpeg" for eye in eyes] + [f"aptos/train_images/{code}.png" for code in codes]
    labels = ["Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion"]
    for split, first in (("train", 1), ("valid", 64541)):
        paths = [f"CheXpert-v1.0-small/{split}/patient{first + i:05d}/study1/view1_frontal.jpg" for i in range(10)]
        rows = ([path, "Frontal", *(f"{(i + j) % 2}.0" for j in range(5))] for i, path in enumerate(paths))
        write_table(root / f"chexpert/CheXpert-v1.0-small/{split}.csv", ["Path", "Frontal/Lateral", *labels], *rows)
        files += [f"chexpert/{path}" for path in paths]
    files += [f"busi/{label}/{label} ({i}).png" for label in ("benign", "malignant", "normal") for i in range(1, 11)]
    for fold in (1, 2):
        for split, images in (("train", range(1, 7)), ("val", (7, 8)), ("test", (9, 10))):
            paths = [f"{label}/{label} ({i}).png" for label in ("benign", "malignant") for i in images]
            write_table(
                root / f"folds/{split}_fold{fold}.csv", ["path", "class"], *([p, p.split("/")[0]] for p in paths)
            )
    files += [f"natural/{label}/{i}.png" for label in "abc" for i in range(4)]
    for file in files:
        touch(root / file)
    return root


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """RadImageNet's four files, empty, where they are looked for."""
    folder = tmp_path / "weights"
    for name in ("ResNet50", "InceptionV3", "DenseNet121", "IRV2"):
        touch(folder / f"RadImageNet-{name}_notop.h5")
    monkeypatch.setenv("RADTRANSFER_WEIGHTS", str(folder))


def planned(name, tmp_path, *, source, root=None, sets=(), arms=()):
    options = {"data.source": str(source)} | ({"data.image_root": str(root)} if root else {})
    return plan_study(load_study(name, sets=sets, options=options, arms=arms), store=tmp_path / "store")


def arm_runs(plan):
    return [(cell, plan.runs[key]) for cell, key in plan.cells if not cell.is_source]


@pytest.mark.parametrize("name", STUDIES)
def test_weights_input_and_data_from_outside_reach_every_arm_and_leave_the_controls(name):
    sets = ("model.weights=w.h5", "model.preprocessing=unit", "data.source=mine.csv")
    cells = study_cells(load_study(name, sets=sets))
    before = {(cell.arm, *cell.combination.items()): cell for cell in study_cells(load_study(name))}
    assert {cell.arm for cell in cells} == set(load_study(name).arms)
    for cell in cells:
        own = next((own for start, own in OWN_WEIGHTS.items() if cell.arm.startswith(start)), "w.h5")
        model = cell.config.model
        assert model.weights == ("random" if cell.arm in CONTROLS else own), cell.name
        assert (model.preprocessing, cell.config.data.source) == ("unit", "mine.csv"), cell.name
        same = before[(cell.arm, *cell.combination.items())]
        assert (same.config.transfer, same.config.training) == (cell.config.transfer, cell.config.training)
        assert (same.config.model.weights == "random") == (cell.arm in CONTROLS)


@pytest.mark.parametrize("name", STUDIES)
def test_all_arms_of_a_network_get_one_input(name, weights):
    modes = {}
    for cell in study_cells(load_study(name)):
        modes.setdefault(cell.config.model.backbone, set()).add(cell.config.model.preprocessing)
    assert all(len(found) == 1 for found in modes.values()), modes
    expected = {"resnet50": "caffe", "inception_v3": "tf", "cbr_tiny": "torch"}
    if name == "radimagenet-24":  # by its recipe
        expected = dict.fromkeys(modes, "caffe_unit")
    assert {network: {expected[network]} for network in modes.keys() & expected.keys()} == {
        network: modes[network] for network in modes.keys() & expected.keys()
    }


def readers(data):
    """A study, the data its text names, the folder of the images, more settings, and what is left out."""
    natural = f"sources.natural.data.source={data / 'natural'}"
    chexpert = data / "chexpert/CheXpert-v1.0-small/train.csv"
    for name in ("transfusion-table1", "transfusion-small-data", "transfusion-convergence", "transfusion-freeze"):
        yield name, data / "eyepacs/trainLabels.csv", data / "eyepacs/train", [natural], set()
        yield name, f"eyepacs:{data / 'eyepacs'}", None, [natural], set()
        yield name, data / "aptos/train.csv", data / "aptos/train_images", [natural], {"patient_regex"}
        yield name, f"aptos2019:{data / 'aptos'}", None, [natural], {"patient_regex"}
    for name in ("transfusion-convergence", "transfusion-freeze"):
        sets = [natural, "recipe=raghu-chexpert"]
        yield name, f"chexpert:{data / 'chexpert'}", None, sets, {"patient_regex", "positive_from"}
    yield "transfusion-table2", chexpert, data / "chexpert", [natural], set()
    yield "transfusion-table2", f"chexpert:{data / 'chexpert'}", None, [natural], {"path_column"}
    others = {"path_column", "label_column", "patient_regex", "task"}
    yield "transfusion-table2", data / "natural", None, [natural], others
    for name in ("busi-advice", "revisiting", "radimagenet-24", "optimisation-dynamics"):
        yield name, data / "folds", data / "busi", [], set()
        yield name, f"busi:{data / 'busi'}", None, [], set()
    yield "quick-advice", "synthetic_fundus:images=40,size=32", None, [], set()
    yield "quick-advice", data / "folds", data / "busi", [], {"positive_from"}
    yield "quick-advice", data / "eyepacs/trainLabels.csv", data / "eyepacs/train", [], set()


def test_every_study_runs_with_every_reader_that_its_text_names(data, weights, tmp_path):
    for name, source, root, sets, left_out in readers(data):
        plan = planned(name, tmp_path, source=source, root=root, sets=sets)
        notes = [note for note in plan.notes if note.startswith("left out")]
        assert len(notes) == bool(left_out), (name, source, notes)
        for setting in left_out:
            assert f"data.{setting} (" in notes[0] and str(source) in notes[0]
        asked = load_study(name).base
        for cell, run in arm_runs(plan):
            kept = {name: value for name, value in asked.items() if name.startswith("data.") and name != "data.source"}
            for setting, value in kept.items():
                found = getattr(run.config.data, setting.removeprefix("data."))
                assert (found == value) == (setting.removeprefix("data.") not in left_out), (cell.name, setting)


def test_settings_of_a_shipped_run_give_way_to_data_of_another_kind_too(data, tmp_path):
    notes = []
    progress = Progress()
    progress.note = notes.append
    for name, source, left_out in (
        ("retina", f"aptos2019:{data}/aptos", ["patient_regex"]),
        ("retina", f"eyepacs:{data}/eyepacs", []),
        ("chexpert", f"chexpert:{data}/chexpert", ["path_column"]),
        ("quickstart", f"busi:{data}/busi", ["positive_from"]),
    ):
        notes.clear()
        asked = load_config(name, options={"data.source": source})
        used = drop_unfit_settings(asked, progress)
        assert used.optional == frozenset() and len(notes) == len(left_out)
        changed = [item for item in vars(asked.data) if getattr(asked.data, item) != getattr(used.data, item)]
        assert changed == left_out
    file = tmp_path / "mine.yaml"
    file.write_text("data: {patient_regex: '^(\\d+)_'}\n")
    mine = load_config(str(file), options={"data.source": f"aptos2019:{data}/aptos"})
    with pytest.raises(RadtransferError, match="gives no patient for 20 of 20"):
        read_table(drop_unfit_settings(mine, progress).data)


def test_the_data_of_a_source_run_need_not_be_like_those_of_the_study(data, tmp_path):
    sets = (f"sources.source.data.source={data / 'natural'}",)
    plan = plan_study(load_study("quick-advice", sets=sets), store=tmp_path)
    assert [note for note in plan.notes if "natural: data.positive_from (2)" in note]
    found = {cell.is_source: plan.runs[key].config.data.positive_from for cell, key in plan.cells}
    assert found == {True: None, False: 2}


@pytest.mark.parametrize(
    ("name", "source", "sets", "message"),
    [
        ("transfusion-table2", "chexpert:{}/chexpert", ["data.path_column=Path"], "--path-column does not apply to"),
        ("transfusion-table2", "chexpert:{}/chexpert", ["base.data.image_root=x"], "--image-root does not apply to"),
        ("transfusion-table1", "aptos2019:{}/aptos", [r"data.patient_regex=^(\d+)_"], "gives no patient for 20 of 20"),
        ("transfusion-table1", "{}/folds", ["data.fold_column=fold"], "--fold-column fold names a column"),
        ("quick-advice", "busi:{}/busi", ["data.positive_from=2"], "--positive-from 2 needs one integer grade"),
        ("quick-advice", "busi:{}/busi", ["data.positive_class=sick"], "--positive-class 'sick'"),
        ("busi-advice", "busi:{}/busi", ["arms.scratch.data.label_separator=|"], "--label-separator is for a column"),
    ],
)
def test_a_setting_that_is_given_with_the_data_is_refused_where_it_does_not_fit(
    data, tmp_path, name, source, sets, message
):
    sets = [*sets, f"sources.natural.data.source={data / 'natural'}"] if "table" in name else sets
    with pytest.raises(RadtransferError, match=message):
        planned(name, tmp_path, source=source.format(data), root=None, sets=sets)


def test_a_setting_of_a_users_own_file_is_refused_where_it_does_not_fit_the_data_there(data, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"base: {{data: {{source: 'aptos2019:{data}/aptos', patient_regex: '^(\\d+)_'}}, model.backbone: cbr_tiny}}\n"
        "arms: {scratch: {}}\n"
    )
    with pytest.raises(RadtransferError, match="gives no patient for 20 of 20"):
        plan_study(load_study(str(file)), store=tmp_path)
    plan = planned(str(file), tmp_path, source=f"eyepacs:{data}/eyepacs")
    assert (plan.notes, arm_runs(plan)[0][1].config.data.patient_regex) == ((), r"^(\d+)_")


MANY = """
base:
  data:
    {source: gone.csv, image_root: /gone, path_column: file, label_column: [dx], patient_column: who, uncertain: ones,
     split_column: part, label_separator: "|", missing_values: drop, positive_class: sick, frames: all}
  model: {backbone: cbr_tiny}
arms: {scratch: {}}
"""
MORE = """
base:
  data:
    {source: gone.csv, path_column: file, label_column: [A, B], patient_regex: '(x[0-9]+)', fold_column: f,
     task: multilabel, positive_from: 7, allow_alike_patients: true}
  model: {backbone: cbr_tiny}
arms: {scratch: {}}
"""


@pytest.mark.parametrize("text", [MANY, MORE])
def test_no_data_setting_of_a_study_stands_in_the_way_of_other_data(data, tmp_path, text):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    sources = [f"busi:{data}/busi", f"chexpert:{data}/chexpert", f"eyepacs:{data}/eyepacs", data / "natural"]
    for source in (*sources, data / "eyepacs/trainLabels.csv", "synthetic_fundus:images=40,size=32"):
        (note,) = planned(str(file), tmp_path, source=source).notes
        assert note.startswith(f"left out, as they do not fit {source}: data.")
        assert "data.path_column (file)" in note and "data.label_column (" in note
        assert "missing_values" not in note and "frames" not in note and "alike" not in note


def test_of_label_columns_that_are_there_in_part_none_is_left_out(data, tmp_path):
    table = tmp_path / "part.csv"
    rows = (data / "chexpert/CheXpert-v1.0-small/train.csv").read_text().replace("Edema", "Oedema")
    table.write_text(rows)
    with pytest.raises(RadtransferError, match="Column 'Edema'"):
        planned("transfusion-table2", tmp_path, source=table, root=data / "chexpert", arms=("random",))


def test_a_study_goes_on_as_it_was_begun(data, tmp_path):
    sets = (f"sources.natural.data.source={data / 'natural'}",)
    for name, source, arms in (
        ("transfusion-table2", f"chexpert:{data}/chexpert", ()),
        ("transfusion-table1", f"aptos2019:{data}/aptos", ("random",)),
        ("revisiting", f"busi:{data}/busi", ("random",)),
    ):
        begun = planned(name, tmp_path, source=source, sets=sets if "trans" in name else (), arms=arms)
        file = tmp_path / f"{name}.yaml"
        file.write_text(study_text(with_absolute_paths(begun.study)))
        again = plan_study(load_study(str(file)), store=tmp_path / "store")
        assert (list(again.runs), again.notes) == (list(begun.runs), begun.notes)


def test_arms_that_are_left_out_do_not_change_the_others(data, tmp_path):
    whole = planned("busi-advice", tmp_path, source=f"busi:{data}/busi")
    for arm in ("scratch", "imagenet", "small"):
        part = planned("busi-advice", tmp_path, source=f"busi:{data}/busi", arms=(arm,))
        assert list(part.runs) == [run.key for cell, run in arm_runs(whole) if cell.arm == arm]


STARTS = """
base: {model: {backbone: resnet50, weights: imagenet}, data.source: mine.csv}
arms:
  scratch: {model.weights: random}
  imagenet: {}
  radimagenet: {model.weights: radimagenet}
"""


def modes_of(text, tmp_path, **load):
    file = tmp_path / "starts.yaml"
    file.write_text(text)
    return {cell.arm: cell.config.model.preprocessing for cell in study_cells(load_study(str(file), **load))}


def test_of_weights_with_different_inputs_the_first_arm_decides_unless_an_arm_names_its_own(tmp_path, weights):
    assert set(modes_of(STARTS, tmp_path).values()) == {"caffe"}
    turned = STARTS.replace("weights: imagenet", "weights: radimagenet")
    turned = turned.replace("{model.weights: radimagenet}", "{model.weights: imagenet}")
    assert set(modes_of(turned, tmp_path).values()) == {"caffe_unit"}
    named = modes_of(STARTS, tmp_path, sets=("arms.radimagenet.model.preprocessing=caffe_unit",))
    assert named == {"scratch": "caffe", "imagenet": "caffe", "radimagenet": "caffe_unit"}
    only = STARTS.replace("imagenet: {}\n  ", "").replace("radimagenet}", "radimagenet, model.preprocessing: unit}")
    assert modes_of(only, tmp_path) == {"scratch": "unit", "radimagenet": "unit"}
    written = modes_of(STARTS + "preprocessing: {resnet50: unit}\n", tmp_path)
    assert set(written.values()) == {"unit"}
    assert set(modes_of(STARTS, tmp_path, sets=("model.preprocessing=tf",)).values()) == {"tf"}


def test_weights_that_are_fed_another_input_than_their_own_are_told_once(data, weights, tmp_path):
    plan = planned("revisiting", tmp_path, source=f"busi:{data}/busi")
    (note,) = plan.notes
    assert note.startswith(
        "resnet50: its arms get preprocessing caffe, but the weights of radimagenet, radimagenet_freeze"
    )
    assert "--set arms.radimagenet.model.preprocessing=caffe_unit" in note


def test_the_input_of_a_source_run_is_that_of_the_arms(data, tmp_path):
    sets = ("sources.natural.model.preprocessing=tf", f"sources.natural.data.source={data / 'natural'}")
    plan = planned("transfusion-table1", tmp_path, source=f"eyepacs:{data}/eyepacs", sets=sets)
    small = {run.config.model.preprocessing for run in plan.runs.values() if "cbr" in run.config.model.backbone}
    assert small == {"tf"}


def test_runs_whose_input_stays_as_it_was_keep_their_addresses(data, tmp_path):
    plan = planned("busi-advice", tmp_path, source=f"busi:{data}/busi")
    sets = (
        *("model.backbone=inception_v3", "model.image_size=96", "training.epochs=5", "training.learning_rate=3e-4"),
        *("training.augmentation=none", "training.eval_every=20", f"data.source=busi:{data}/busi"),
    )
    runs = {cell.arm: run for cell, run in arm_runs(plan)}

    def alone(*more):
        config = load_config(sets=(*sets, *more))
        return address(run_identity(config, table=runs["scratch"].identity["table"]))

    assert runs["imagenet"].address == alone("model.weights=imagenet")
    assert runs["scratch"].address == alone("model.preprocessing=tf") != alone()


def test_all_runs_of_a_sweep_get_one_input():
    from radtransfer.studies.tables import freeze_sweep, transfusion_sweep

    config = load_config(sets=("model.backbone=resnet50", "model.weights=imagenet", "data.source=x"))
    for sweep in (freeze_sweep(config, ["stem", "stage4"]), transfusion_sweep(config, ["stem"], threshold=0.8)):
        cells = study_cells(sweep.study)
        assert {(cell.config.model.preprocessing, cell.own_preprocessing) for cell in cells} == {("caffe", "caffe")}


CONTROL = """
arms:
  scratch: {}
  transfer: {model.weights: imagenet}
"""


@pytest.mark.parametrize("setting", ["model.weights=w.h5", "base.model.weights=w.h5", "grid.model.weights=[w.h5]"])
def test_weights_for_all_do_not_turn_a_control_that_names_none_into_a_pretrained_arm(tmp_path, setting):
    file = tmp_path / "mine.yaml"
    file.write_text(CONTROL)
    with pytest.raises(RadtransferError) as caught:
        load_study(str(file), sets=(setting,))
    assert f"--set {setting.partition('=')[0].removeprefix('base.')}" in str(caught.value) or "base." in setting
    assert "scratch would start from these weights" in str(caught.value)
    assert "--set arms.NAME.model.weights=…" in str(caught.value)
    load_study(str(file), sets=("arms.transfer.model.weights=w.h5", "model.weights=random"))
    file.write_text(CONTROL.replace("imagenet", "random"))
    cells = study_cells(load_study(str(file), sets=("model.weights=imagenet", "model.backbone=resnet50")))
    assert {cell.arm: cell.config.model.weights for cell in cells} == {"scratch": "imagenet", "transfer": "random"}
