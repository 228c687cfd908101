"""Every check finds what it is for, and nothing in a sound set."""

from dataclasses import replace

import numpy as np
import pytest

from radtransfer.data import checks
from radtransfer.data.checks import ImageRecord
from radtransfer.images.refs import FilePart


def found(name, evidence):
    """Kind, severity and files of what a check finds."""
    return [(finding.kind, finding.severity, finding.files) for finding in getattr(checks, name)(evidence)]


def only(name, evidence):
    (finding,) = getattr(checks, name)(evidence)
    return finding


@pytest.mark.parametrize("name", [check.__name__ for check in checks.CHECKS])
def test_a_sound_set_gives_no_finding(name, make_evidence):
    labels = "ab" * 60
    folds = [
        "".join("e" if i // 2 % 5 == k else "v" if i // 2 % 5 == (k + 1) % 5 else "t" for i in range(120))
        for k in range(5)
    ]
    patients = [f"p{i}" for i in range(120)]
    assert found(name, make_evidence(labels, patients=patients, folds=folds)) == []


def test_images_that_cannot_be_read_are_errors_unless_they_are_skipped(make_evidence, make_record):
    records = [make_record(), ImageRecord("truncated", "truncated"), ImageRecord("missing", "not found")]
    expected = [("truncated", ("1.png",)), ("missing", ("2.png",))]
    for skip, severity in ((False, "error"), (True, "warning")):
        evidence = make_evidence("aab", records, skip_bad=skip)
        assert found("unreadable", evidence) == [(kind, severity, files) for kind, files in expected]


@pytest.mark.parametrize("key", ["contents", "pixels"])
def test_one_image_with_two_labels_is_an_error(make_evidence, make_record, key):
    records = [make_record(i, **({key: b"same"} if i in (1, 3) else {})) for i in range(4)]
    finding = only("duplicates", make_evidence("aabb", records))
    assert (finding.kind, finding.severity, finding.files) == ("contradictory_labels", "error", ("1.png", "3.png"))
    assert "labelled a, b" in finding.message


def test_unknown_labels_contradict_nothing(make_evidence, make_record):
    records = [make_record(i, pixels=b"same") for i in range(2)]
    assert found("duplicates", make_evidence(["ab", "?"], records, task="multilabel")) == [
        ("duplicate", "warning", ("0.png", "1.png"))
    ]
    finding = only("duplicates", make_evidence(["ab", "a"], records, task="multilabel"))
    assert "with and without the label b" in finding.message


def test_copies_in_two_splits_of_any_fold_are_a_leak(make_evidence, make_record):
    records = [make_record(i, pixels=b"same" if i < 2 else b"%d" % i) for i in range(4)]
    finding = only("duplicates", make_evidence("aabb", records, folds=["tttt", "tett", "ettt"]))
    assert (finding.kind, finding.severity, finding.files) == ("leak", "error", ("0.png", "1.png"))
    assert "train and test of folds 2, 3" in finding.message
    assert found("duplicates", make_evidence("aabb", records, folds=["tttt", "vvte"])) == [
        ("duplicate", "warning", ("0.png", "1.png"))
    ]


def test_chains_of_copies_are_one_finding(make_evidence, make_record):
    records = [make_record(0, contents=b"x"), make_record(1, contents=b"x", pixels=b"y"), make_record(2, pixels=b"y")]
    assert [files for *_, files in found("duplicates", make_evidence("aaab"[:3], records))] == [
        ("0.png", "1.png", "2.png")
    ]


def test_one_path_in_two_splits_is_a_leak_even_if_it_cannot_be_read(make_evidence):
    records = [ImageRecord("missing", "not found")] * 2
    evidence = make_evidence("aa", records, paths=("a.png", "a.png"), folds=["te"], given=True)
    assert found("duplicates", evidence) == [("leak", "error", ("a.png",))]


@pytest.fixture
def frames(make_evidence, make_record, tmp_path):
    """Evidence of a file with three frames and of one with one; the looks of the frames are alike."""

    def make(labels, fold):
        (tmp_path / "x.tif").touch()
        (tmp_path / "y.tif").touch()
        look = np.random.default_rng(0).integers(0, 256, (8, 9)).astype(np.uint8)
        records = [make_record(i, contents=b"", grid=look) for i in range(3)] + [make_record(3)]
        evidence = make_evidence(labels, records, folds=[fold])
        places = [*(FilePart(tmp_path / "x.tif", frame=i) for i in range(3)), tmp_path / "y.tif"]
        return replace(evidence, table=replace(evidence.table, files=tuple(places)))

    return make


def test_frames_of_one_file_are_no_copies_and_may_have_labels_of_their_own(frames):
    for name in ("duplicates", "near_duplicates"):
        assert found(name, frames("abab", "ttte")) == []


def test_frames_of_one_file_in_two_splits_are_a_leak(frames):
    finding = only("duplicates", frames("abab", "ttee"))
    assert (finding.kind, finding.severity, finding.files) == ("leak", "error", ("0.png", "1.png", "2.png"))
    assert "train and test of fold 1" in finding.message


def test_constant_images_are_not_copies_of_each_other(make_evidence, make_record):
    records = [make_record(i, pixels=b"black", contents=b"black", low=0.0, high=0.0, spread=0.0) for i in range(2)]
    evidence = make_evidence("ab", records)
    assert found("duplicates", evidence) == []
    assert found("constant", evidence) == [("constant", "error", ("0.png",)), ("constant", "error", ("1.png",))]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"low": 100.0, "high": 104.0, "spread": 1.5}, "nearly_constant"),
        ({"low": 0.0, "high": 255.0, "spread": 0.3}, "nearly_constant"),
        ({"low": 0.0, "high": 4.0, "spread": 1.5, "mode": "16-bit grey"}, None),
        ({"low": 0.0, "high": 4.0, "spread": 1.5, "mode": "DICOM"}, "nearly_constant"),
        ({"low": 0.0, "high": 30.0, "spread": 5.0}, None),
    ],
)
def test_nearly_constant_images_are_warnings(make_evidence, make_record, values, kind):
    kinds = [kind for kind, *_ in found("constant", make_evidence("a", [make_record(**values)]))]
    assert kinds == ([kind] if kind else [])


def test_a_patient_in_two_given_splits_is_a_leak(make_evidence):
    finding = only("patients", make_evidence("abab", patients="ppqq", folds=["tett"], given=True))
    assert (finding.kind, finding.severity, finding.patients) == ("leak", "error", ("p",))
    assert finding.files == ("0.png", "1.png")


def test_unknown_patients_are_a_warning(make_evidence):
    assert found("patients", make_evidence("ab")) == [("no_patients", "warning", ())]


def test_one_class_is_an_error(make_evidence):
    assert found("classes", make_evidence("aaa")) == [("one_class", "error", ())]


def test_a_split_of_one_class_and_classes_of_few_patients_are_warnings(make_evidence):
    evidence = make_evidence("ababab" + "ab", folds=["ttttvvea"[:7].replace("a", "e") + "t"])
    kinds = found("classes", evidence)
    assert ("one_class", "warning", ()) in kinds
    assert kinds.count(("few_patients", "warning", ())) == 2


def test_few_patients_counts_patients_and_not_images(make_evidence):
    evidence = make_evidence("a" * 12 + "b" * 12, patients="pppppppppppp" + "qrstuvwxyzmn", folds=["e" * 24])
    messages = [finding.message for finding in checks.classes(evidence)]
    assert messages[-1] == "the test set of fold 1 has only 1 patient of a: its AUC is unreliable"
    assert not any("of b" in message for message in messages)


def test_imbalance_is_a_note_with_both_numbers(make_evidence):
    finding = only("classes", make_evidence("a" * 50 + "b" * 5))
    assert (finding.kind, finding.severity) == ("imbalance", "note")
    assert "50 images of a and 5 of b" in finding.message


def test_twelve_bits_in_sixteen_are_a_warning_unless_a_window_is_given(make_evidence, make_record):
    records = [make_record(i, deep=True, mode="16-bit grey", high=4095 / 257) for i in range(2)]
    finding = only("value_range", make_evidence("ab", records))
    assert (finding.kind, finding.severity, finding.files) == ("range", "warning", ("0.png", "1.png"))
    assert "0 to 4095" in finding.message
    assert found("value_range", make_evidence("ab", records, window="minmax")) == []
    full = [*records, make_record(2, deep=True, mode="16-bit grey", high=200.0)]
    assert found("value_range", make_evidence("abb", full)) == []


@pytest.mark.parametrize(("low", "high", "word"), [(-1000, 400, "outside"), (0, 1, "nearly black"), (0, 255, None)])
def test_floats_outside_their_range_are_warnings(make_evidence, make_record, low, high, word):
    records = [make_record(mode="float grey", deep=True, decoder="pillow", low=low, high=high)]
    findings = found("value_range", make_evidence("a", records))
    assert findings == ([("range", "warning", ("0.png",))] if word else [])


def test_small_and_unusual_sizes_are_notes(make_evidence, make_record):
    records = [make_record(i, height=100, width=100) for i in range(8)]
    records += [make_record(8, height=20, width=20), make_record(9, height=100, width=300)]
    assert found("sizes", make_evidence("ab" * 5, records)) == [
        ("small_image", "note", ("8.png",)),
        ("unusual_size", "note", ("8.png", "9.png")),
    ]


def test_sizes_are_those_of_the_upright_image(make_evidence, make_record):
    records = [make_record(i, height=100, width=200) for i in range(4)]
    records.append(make_record(4, height=200, width=100, orientation=6))
    assert found("sizes", make_evidence("ababa", records)) == []


def test_mixed_modes_are_notes_and_warnings_where_they_tell_the_class(make_evidence, make_record):
    grey = [make_record(i, mode="grey") for i in range(20)]
    color = [make_record(20 + i) for i in range(30)]
    assert [kind[:2] for kind in found("modes", make_evidence("a" * 20 + "b" * 30, grey + color))] == [
        ("mixed_modes", "warning")
    ]
    assert [kind[:2] for kind in found("modes", make_evidence("ab" * 25, grey + color))] == [("mixed_modes", "note")]


def test_a_mode_that_tells_the_class_says_how_many_of_which_class(make_evidence, make_record):
    records = [make_record(i, mode="RGB with alpha" if i < 20 else "RGB") for i in range(90)]
    message = only("modes", make_evidence("a" * 40 + "b" * 50, records)).message
    assert message.startswith("20 images stored as RGB with alpha, 70 as RGB: all 20 are a; 20 of 40 a, 0 of 50 b;")
    labels = "a" * 19 + "b" + "a" * 21 + "b" * 49
    finding = only("modes", make_evidence(labels, records))
    assert finding.severity == "warning" and "19 of 40 a, 1 of 50 b; possible shortcut" in finding.message


def test_training_sets_that_differ_by_more_than_half_are_a_warning(make_evidence):
    labels = "ab" * 10
    even = ["t" * 12 + "v" * 2 + "e" * 6, "e" * 6 + "v" * 6 + "t" * 8]
    assert "uneven_folds" not in {kind for kind, *_ in found("classes", make_evidence(labels, folds=even))}
    uneven = [even[0], "e" * 6 + "v" * 7 + "t" * 7]
    (finding,) = [item for item in checks.classes(make_evidence(labels, folds=uneven)) if item.kind == "uneven_folds"]
    assert finding.severity == "warning"
    assert finding.message.startswith("fold 1 trains on 12 images, fold 2 on 7:")


def test_turned_images_are_a_note(make_evidence, make_record):
    records = [make_record(0), make_record(1, orientation=6)]
    assert found("modes", make_evidence("ab", records)) == [("orientation", "note", ("1.png",))]
