import csv

import numpy as np
import pytest
from published_files import LAYERS, change, write_csv, write_published
from scipy import stats

from radtransfer.reports.published import (
    LayerPair,
    auc_rows,
    cca_rows,
    difference_rows,
    gain_rows,
    pair_kind,
    prediction_rows,
    read_published,
)


@pytest.fixture
def folder(tmp_path):
    return write_published(tmp_path / "published")


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def gain(folder):
    rows, notes = gain_rows(read_published(folder))
    return {(row["source"], row["layer"]): row for row in rows}, notes


def test_auc_is_mean_and_sample_sd_over_folds(folder):
    expected = {}
    for line in read_csv(folder / "AUC.csv"):
        expected.setdefault((line["target"], line["source"], line["freeze"]), []).append(float(line["AUC"]))
    rows = auc_rows(read_published(folder))
    assert {(row["target"], row["source"], row["freeze"]) for row in rows} == set(expected)
    for row in rows:
        values = expected[row["target"], row["source"], row["freeze"]]
        assert row["mean"] == pytest.approx(np.mean(values))
        assert row["sd"] == pytest.approx(np.std(values, ddof=1))
        assert row["n"] == 4


def test_gain_is_regressed_on_similarity_for_each_source_and_layer(folder):
    rows, notes = gain(folder)
    assert list(rows) == [(source, layer) for source in ("ImageNet", "Other-Net") for layer in LAYERS]
    assert notes == []
    aucs = {(r["target"], r["source"], r["freeze"], r["fold"]): float(r["AUC"]) for r in read_csv(folder / "AUC.csv")}
    x, y = [], []
    for target in ("lung", "brain-mri"):
        for line in read_csv(folder / f"CCA_{target}.csv"):
            if line["model1"] == f"{target}-Other-Net-freezeFalse" and line["model2"] == "Other-Net":
                base = aucs[target, "random", "freezeFalse", line["fold"]]
                x.append(float(line["block1"]))
                y.append((aucs[target, "Other-Net", "freezeFalse", line["fold"]] - base) / base)
    theirs = stats.linregress(x, y)
    row = rows["Other-Net", "block1"]
    assert row["n"] == len(x) == 8
    assert row["slope"] == pytest.approx(theirs.slope)
    assert row["r"] == pytest.approx(theirs.rvalue)
    half = stats.t.ppf(0.975, 6) * theirs.stderr
    assert row["ci95"] == pytest.approx([theirs.slope - half, theirs.slope + half])
    assert row["slope"] == pytest.approx(-0.5, abs=0.1)


def test_frozen_networks_and_other_pairs_are_no_points(folder):
    before, _ = gain(folder)
    lines = [line for line in read_csv(folder / "CCA_lung.csv") if line["model1"].endswith("freezeFalse")]
    kept = [line for line in lines if line["model2"] != "random"]
    write_csv(folder / "CCA_lung.csv", list(kept[0]), [line.values() for line in kept])
    assert gain(folder)[0] == before


def test_a_fold_without_random_auc_is_left_out_with_a_note(folder):
    lines = [
        r for r in read_csv(folder / "AUC.csv") if (r["target"], r["source"], r["fold"]) != ("lung", "random", "fold2")
    ]
    write_csv(folder / "AUC.csv", list(lines[0]), [line.values() for line in lines])
    rows, notes = gain(folder)
    assert {row["n"] for row in rows.values()} == {7}
    assert notes == [
        f"similarity against gain, lung, {source}: no AUC of random initialization in fold2; left out"
        for source in ("ImageNet", "Other-Net")
    ]


def test_a_random_auc_of_zero_gives_no_gain(folder):
    first = (folder / "AUC.csv").read_text(encoding="utf-8").splitlines()[1]
    change(folder / "AUC.csv", first, "lung,random,freezeFalse,fold1,0")
    rows, notes = gain(folder)
    assert rows["ImageNet", "conv1"]["n"] == 7
    assert "no AUC of random initialization above 0 in fold1" in notes[0]


def test_without_random_networks_there_is_no_gain(folder):
    lines = [line for line in read_csv(folder / "AUC.csv") if line["source"] != "random"]
    write_csv(folder / "AUC.csv", list(lines[0]), [line.values() for line in lines])
    rows, notes = gain(folder)
    assert {(row["n"], row["slope"], row["r"], row["ci95"]) for row in rows.values()} == {(0, None, None, None)}
    assert any("no AUC of random initialization in fold1, fold2, fold3, fold4" in note for note in notes)
    assert any("too few points for a line with an interval (0)" in note for note in notes)


def test_without_cca_files_there_is_nothing_to_regress(folder):
    for path in folder.glob("CCA_*.csv"):
        path.unlink()
    rows, notes = gain(folder)
    assert rows == {}
    assert notes == ["similarity against gain: no CCA_<target>.csv"]


def test_random_networks_are_no_source_of_gain(folder):
    path = folder / "CCA_lung.csv"
    line = "lung-random-freezeFalse,random,fold1,lung,0.5,0.5,0.5\n"
    path.write_text(path.read_text(encoding="utf-8") + line, encoding="utf-8")
    rows, notes = gain(folder)
    assert {source for source, _ in rows} == {"ImageNet", "Other-Net"}
    assert notes == []


def test_networks_of_another_target_are_no_points(folder):
    (folder / "CCA_lung.csv").rename(folder / "CCA_heart.csv")
    rows, notes = gain(folder)
    assert rows["ImageNet", "conv1"]["n"] == 4
    assert notes[0] == "similarity against gain: CCA_heart.csv has no heart-<source>-freezeFalse with its <source>"


def test_a_pair_on_other_images_gives_way_to_the_targets_own(folder):
    before, _ = gain(folder)
    path = folder / "CCA_lung.csv"
    line = "lung-ImageNet-freezeFalse,ImageNet,fold1,cats,0.01,0.01,0.01\n"
    path.write_text(path.read_text(encoding="utf-8") + line, encoding="utf-8")
    rows, notes = gain(folder)
    assert rows == before
    assert "stimuli 'cats' left out" in notes[0]


@pytest.mark.parametrize(
    ("model1", "model2", "kind", "title"),
    [
        ("a-b-S-freezeFalse", "S", "own start", "S, before – after"),
        ("a-b-S-freezeTrue", "S", "own start", "S, before – after, frozen"),
        ("a-b-S-freezeFalse", "a-b-R-freezeFalse", "sources", "S – R, after"),
        ("a-b-S-freezeFalse", "a-b-S-freezeTrue", "frozen", "S, unfrozen – frozen"),
        ("a-b-S-freezeFalse", "random", "random", "S after – random"),
        ("S", "R", "starts", "S – R, before"),
        ("random", "random", "starts", "random – random, before"),
        ("a-b-S-freezeFalse", "R", "other", "S after – R"),
    ],
)
def test_pairs_are_sorted_by_what_their_networks_are(model1, model2, kind, title):
    assert pair_kind(LayerPair("a-b", model1, model2, "fold1", "", {})) == (kind, title)


def test_cca_is_mean_and_sample_sd_over_folds(folder):
    rows = [r for r in cca_rows(read_published(folder)) if r["model1"] == "lung-ImageNet-freezeTrue"]
    assert [(row["layer"], row["n"], row["kind"]) for row in rows] == [(layer, 4, "own start") for layer in LAYERS]
    assert rows[0]["mean"] == pytest.approx(0.99)


def test_predictions_are_compared_with_chance_on_the_same_folds(folder):
    row = next(row for row in prediction_rows(read_published(folder)) if row["target"] == "lung")
    assert row["excess"] == pytest.approx(row["real_mean"] - row["rand_mean"])
    assert row["n"] == 4
    assert row["excess_ci95"][0] > 0.1


def test_differences_are_taken_on_the_same_folds(folder):
    rows = difference_rows(read_published(folder))
    pairs = {(r["source_a"], r["freeze_a"], r["source_b"], r["freeze_b"]) for r in rows if r["target"] == "lung"}
    assert ("random", "freezeFalse", "ImageNet", "freezeFalse") in pairs
    assert ("Other-Net", "freezeFalse", "Other-Net", "freezeTrue") in pairs
    assert len(pairs) == 3 + 2


def test_the_published_files_of_the_paper(shared_data):
    published = shared_data.parent / "published"
    if not published.is_dir():
        pytest.skip("the published results are not there")
    found = read_published(published)
    rows = {(row["target"], row["source"], row["freeze"]): row for row in auc_rows(found)}
    breast = [rows["breast", source, "freezeFalse"] for source in ("ImageNet", "RadImageNet", "random")]
    assert [f"{100 * row['mean']:.1f} ± {100 * row['sd']:.1f}" for row in breast] == [
        "90.5 ± 3.8",
        "88.2 ± 4.2",
        "51.2 ± 10.0",
    ]
    gains = {(row["source"], row["layer"]): row for row in gain_rows(found)[0]}
    assert {row["n"] for row in gains.values()} == {5 * len({pair.target for pair in found.pairs})}
    assert {source for source, _ in gains} == {"ImageNet", "RadImageNet"}
    assert len(gains) == 10
