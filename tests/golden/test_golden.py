"""The rules by which golden results are compared, on made-up folders."""

import hashlib
import json
import zipfile

import h5py
import numpy as np
import pytest
from comparing import compare
from golden import groups, importable


@pytest.fixture
def pair(tmp_path):
    """Two equal folders of golden results."""
    for name in ("a", "b"):
        folder = tmp_path / name
        (folder / "runs" / "0123456789ab").mkdir(parents=True)
        (folder / "results").mkdir()
        write(folder / "made.json", {"root": f"/somewhere/{name}"})
        metrics = {"auc": {"mean": 0.1 + 0.2, "per_fold": [0.5, float("nan")]}, "seconds": 3, "notes": ["one"]}
        write(folder / "results" / "metrics.json", metrics | {"out": f"/somewhere/{name}/runs", "error": None})
        (folder / "results" / "rows.csv").write_text("path,auc,started\nx.png,0.25,2026\n")
        np.savez(folder / "results" / "features.npz", features=np.array([1.0, np.nan]))
        with h5py.File(folder / "results" / "model.weights.h5", "w") as file:
            file["layer/kernel"] = np.arange(6, dtype="float32").reshape(2, 3)
        (folder / "results" / "page.html").write_text("<p>Some words.")
        write(folder / "runs" / "0123456789ab" / "run.json", {"seed": 0})
        write(folder / "table.json", {"runs": [{"run": "0123456789ab", "arm": "scratch", "labels": {"seed": 0}}]})
    return tmp_path / "a", tmp_path / "b"


def write(path, value):
    path.write_text(json.dumps(value))


def change(folder, name, **values):
    path = folder / "results" / name
    write(path, json.loads(path.read_text()) | values)


def test_equal_folders_have_no_differences(pair):
    assert compare(*pair) == []


def test_times_paths_of_the_folder_words_and_pages_may_differ(pair):
    change(pair[1], "metrics.json", seconds=9, notes=["another"])
    (pair[1] / "results" / "rows.csv").write_text("path,auc,started\nx.png,0.25,2027\n")
    (pair[1] / "results" / "page.html").write_text("<p>Others.")
    (pair[1] / "logs").mkdir()
    (pair[1] / "logs" / "a.txt").write_text("said")
    assert compare(*pair) == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"auc": {"mean": 0.3, "per_fold": [0.5, float("nan")]}}, ".auc.mean: 0.30000000000000004 and 0.3"),
        ({"auc": {"mean": 0.1 + 0.2, "per_fold": [0.5]}}, ".auc.per_fold[]: 2 and 1"),
        ({"brier": 0.2}, ".brier: '(missing)' and 0.2"),
        ({"seconds": 3, "error": "Failed."}, ".error: None and '(text)'"),
        ({"notes": ["one", "two"]}, ".notes[]: 1 and 2"),
        ({"error": 0.5}, ".error: None and 0.5"),
    ],
)
def test_numbers_keys_lengths_and_whether_there_is_a_text_must_be_equal(pair, values, said):
    change(pair[1], "metrics.json", **values)
    assert f"results/metrics.json: {said}" in compare(*pair)


def test_the_order_of_keys_and_the_kind_of_a_number_must_be_equal(pair):
    write(pair[1] / "runs" / "0123456789ab" / "run.json", {"seed": 0.0})
    assert compare(*pair) == ["runs/<scratch ('seed', 0)>/run.json: .seed: 0 and 0.0"]
    write(pair[0] / "results" / "order.json", {"a": 1, "b": 2})
    write(pair[1] / "results" / "order.json", {"b": 2, "a": 1})
    assert "results/order.json: {}: ('a', 'b') and ('b', 'a')" in compare(*pair)


def test_a_tolerance_lets_small_differences_pass(pair):
    change(pair[1], "metrics.json", auc={"mean": 0.3, "per_fold": [0.5, float("nan")]})
    np.savez(pair[1] / "results" / "features.npz", features=np.array([1.0 + 1e-9, np.nan]))
    assert len(compare(*pair)) == 2
    assert compare(*pair, tolerance=1e-6) == []


def test_columns_and_cells_of_tables_must_be_equal(pair):
    (pair[1] / "results" / "rows.csv").write_text("path,AUC,started\nx.png,0.25,2026\n")
    assert "results/rows.csv: columns: ('path', 'auc', 'started') and ('path', 'AUC', 'started')" in compare(*pair)
    (pair[1] / "results" / "rows.csv").write_text("path,auc,started\nx.png,0.26,2026\n")
    assert compare(*pair) == ["results/rows.csv: row 1.auc: 0.25 and 0.26"]


def test_the_set_of_files_must_be_equal(pair):
    (pair[1] / "results" / "page.html").unlink()
    (found,) = compare(*pair)
    assert found.startswith("results/page.html: only in ")
    assert compare(*pair, only=["runs", "results/rows.csv"]) == []


def test_what_was_not_made_is_left_out(pair):
    write(pair[1] / "made.json", {"root": "/somewhere/b", "only": ["some"]})
    (pair[1] / "results" / "page.html").unlink()
    (pair[0] / "runs" / "other").mkdir()
    write(pair[0] / "runs" / "other" / "run.json", {})
    write(pair[0] / "runs" / "0123456789ab" / "more.json", {})
    for folder, codes in zip(pair, ({"a": 0, "b": 0}, {"b": 2}), strict=True):
        write(folder / "results" / "exit_codes.json", codes)
    assert compare(*pair) == ["results/exit_codes.json: .b: 0 and 2"] + [
        f"runs/<scratch ('seed', 0)>/more.json: only in {pair[0]}"
    ]


def test_arrays_are_compared_and_not_the_bytes_around_them(pair):
    np.savez_compressed(pair[1] / "results" / "features.npz", features=np.array([1.0, np.nan]))
    assert compare(*pair) == []
    with h5py.File(pair[1] / "results" / "model.weights.h5", "a") as file:
        file["layer/kernel"][0, 1] = 1.5
    assert compare(*pair) == ["results/model.weights.h5: layer/kernel: arrays (2, 3) differ by at most 0.5"]


def test_of_a_class_the_registered_name_is_compared_and_not_its_module(pair):
    for folder, module in zip(pair, ("radtransfer.old", "radtransfer.new"), strict=True):
        with zipfile.ZipFile(folder / "results" / "model.keras", "w") as archive:
            archive.writestr("config.json", json.dumps({"module": module, "registered_name": "radtransfer>Gabor"}))
    assert compare(*pair) == []
    with zipfile.ZipFile(pair[1] / "results" / "model.keras", "w") as archive:
        archive.writestr("config.json", json.dumps({"module": module, "registered_name": "radtransfer>Other"}))
    assert len(compare(*pair)) == 1


def test_a_store_may_name_its_runs_anew(pair):
    (pair[1] / "runs" / "0123456789ab").rename(pair[1] / "runs" / "ba9876543210")
    write(pair[1] / "table.json", {"runs": [{"run": "ba9876543210", "arm": "scratch", "labels": {"seed": 0}}]})
    assert compare(*pair) == []


def test_the_hash_of_a_stored_file_stands_for_its_place(pair):
    for folder, time in zip(pair, ("1", "2"), strict=True):
        with zipfile.ZipFile(folder / "results" / "model.keras", "w") as archive:
            archive.writestr("metadata.json", json.dumps({"date_saved": time}))
        digest = hashlib.sha256((folder / "results" / "model.keras").read_bytes()).hexdigest()
        write(folder / "results" / "hash.json", {"sha256": digest})
    assert compare(*pair) == []
    write(pair[1] / "results" / "hash.json", {"sha256": "0" * 64})
    (found,) = compare(*pair)
    assert "<sha256 of results/model.keras>" in found


def test_a_file_that_cannot_be_read_is_a_difference(pair):
    (pair[1] / "results" / "metrics.json").write_text("{")
    assert any("(cannot be read)" in line for line in compare(*pair))


def test_no_two_commands_share_a_name():
    names = [
        line.split()[0]
        for section in ("first", "training", "without runs", "reading")
        for group in groups(section)
        for line in group
    ]
    assert len(names) == len(set(names))
    assert len(groups("exit codes")[0]) > 60


def test_a_checkout_is_importable_by_the_folders_that_its_settings_name(tmp_path):
    for folder in ("radtransfer", "cli"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "setup.cfg").write_text(
        "[options]\npackage_dir =\n    radtransfer = radtransfer\n    radtransfer.cli = cli\n"
    )
    package = importable(tmp_path) / "radtransfer"
    assert (package / "cli").resolve() == tmp_path / "cli"
    assert (package / "__init__.py").exists()
