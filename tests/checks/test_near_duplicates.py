"""Images that look alike: all sets of them, without comparing each with each."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from radtransfer.data.checks import BITS, DIFFERENCE, linked, near_duplicates, similar_pairs


def looks_of(seed, count):
    """Miniatures of which some are others with a little noise."""
    rng = np.random.default_rng(seed)
    bases = rng.integers(0, 256, (4, 8, 9))
    noisy = bases[rng.integers(0, 4, count)] + rng.integers(-5, 6, (count, 8, 9)) * rng.integers(0, 2, (count, 1, 1))
    return list(np.clip(noisy, 0, 255).astype(np.uint8))


def joined(pairs):
    return linked((member, pair) for pair in pairs for member in pair)


@given(seed=st.integers(0, 10_000), count=st.integers(0, 25))
def test_the_sets_are_those_that_comparing_each_with_each_finds(seed, count):
    looks = looks_of(seed, count)
    images = [look.astype(int) for look in looks]
    bits = [image[:, 1:] > image[:, :-1] for image in images]
    expected = {
        (i, j)
        for i in range(count)
        for j in range(i + 1, count)
        if (bits[i] != bits[j]).sum() <= BITS and np.abs(images[i] - images[j]).mean() <= DIFFERENCE
    }
    pairs = similar_pairs(looks)
    assert set(pairs) <= expected
    assert joined(pairs) == joined(expected)


def test_of_many_images_that_are_all_alike_few_are_compared():
    look = np.random.default_rng(0).integers(0, 256, (8, 9)).astype(np.uint8)
    assert len(similar_pairs([look] * 3000)) == 2999


def alike(make_record, number, noise):
    look = np.random.default_rng(0).integers(0, 256, (8, 9)).astype(np.uint8)
    look[0, 0] ^= noise
    return make_record(number, grid=look)


def test_images_that_look_alike_in_two_splits_or_classes_are_a_warning(make_evidence, make_record):
    records = [alike(make_record, i, i) for i in range(2)]
    for labels, fold in (("aa", "te"), ("ab", "tt")):
        (finding,) = near_duplicates(make_evidence(labels, records, folds=[fold]))
        assert (finding.kind, finding.severity) == ("near_duplicate", "warning")
        assert finding.files == ("0.png", "1.png")
    assert list(near_duplicates(make_evidence("aa", records, folds=["tt"]))) == []


def test_nearly_identical_images_of_opposite_labels_in_two_splits_are_an_error(make_evidence, make_record):
    small = np.random.default_rng(0).integers(0, 240, (64, 64)).astype(np.uint8)
    records = [make_record(i, miniature=image) for i, image in enumerate((small, small + 9, small[:, ::-1]))]
    cases = {("ab", "te"): "error", ("ab", "tv"): "error", ("ab", "tt"): "warning", ("aa", "te"): "warning"}
    for (labels, fold), severity in cases.items():
        (finding,) = near_duplicates(make_evidence(labels, records[:2], folds=[fold]))
        assert (finding.kind, finding.severity, finding.files) == ("near_duplicate", severity, ("0.png", "1.png"))
    (finding,) = near_duplicates(make_evidence("aab", records, folds=["tt-", "tte"]))
    assert finding.severity == "error" and "labelled a, b; in train and test of fold 2" in finding.message
    assert list(near_duplicates(make_evidence("aa", records[:2], folds=["tt"]))) == []


def test_copies_are_left_to_their_own_check(make_evidence, make_record):
    records = [alike(make_record, i, 0) for i in range(2)]
    records = [make_record(i, grid=item.grid, pixels=b"same") for i, item in enumerate(records)]
    assert list(near_duplicates(make_evidence("ab", records, folds=["te"]))) == []


def test_a_copy_among_images_that_look_alike_is_named_with_them(make_evidence, make_record):
    records = [alike(make_record, i, i // 2) for i in range(3)]
    records[:2] = [make_record(i, grid=records[i].grid, pixels=b"same") for i in range(2)]
    (finding,) = near_duplicates(make_evidence("aaa", records, folds=["tte"]))
    assert finding.files == ("0.png", "1.png", "2.png")


def test_images_without_a_look_are_like_none(make_evidence, make_record):
    assert list(near_duplicates(make_evidence("ab", [make_record(0), make_record(1)], folds=["te"]))) == []
