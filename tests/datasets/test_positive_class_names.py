"""A positive class is one of two classes, by the name that the classes have."""

import pytest

from radtransfer.data.labels import find_positive_class
from radtransfer.errors import ConfigError


def find(name, classes, task="multiclass", positive_from=None):
    return find_positive_class(name, classes, task=task, positive_from=positive_from)


@pytest.mark.parametrize(
    ("name", "classes", "found"),
    [
        ("ap", ("ap", "pa"), "ap"),
        (" ap ", ("ap", "pa"), "ap"),
        ("1", ("0", "1"), "1"),
        ("1.0", ("0", "1"), "1"),
        ("01", ("01", "1"), "01"),
        ("1", ("01", "1"), "1"),
        ("True", ("False", "True"), "True"),
        ("none", ("none", "some"), "none"),
        ("caf\u0065\u0301", ("caf\u00e9", "tea"), "caf\u00e9"),
        ("a b", ("a b", "a_b"), "a b"),
    ],
)
def test_names_match_as_those_of_classes_do(name, classes, found):
    assert find(name, classes) == found


@pytest.mark.parametrize(
    ("name", "classes", "meant"),
    [
        ("AP", ("ap", "pa"), "Did you mean 'ap'?"),
        ("malign", ("benign", "malignant"), "Did you mean 'malignant' or 'benign'?"),
        ("1", ("01", "02"), "Did you mean '01'"),
        ("COVID", ("Covid", "NonCovid"), "Did you mean 'Covid'?"),
        ("x", ("ap", "pa"), "Give one of them."),
        ("unknown", ("Mass", "NA"), "the classes are 'Mass' and 'NA'"),
        ("", ("ap", "pa"), "the classes are 'ap' and 'pa'"),
    ],
)
def test_an_unknown_name_is_answered_with_the_one_that_is_meant(name, classes, meant):
    with pytest.raises(ConfigError, match="the classes are") as refused:
        find(name, classes)
    assert meant in str(refused.value)


@pytest.mark.parametrize(
    ("classes", "options", "why"),
    [
        (("a", "b", "c"), {}, "found 3: a, b, c"),
        (("a",), {}, "found 1: a"),
        (("a", "b"), {"task": "multilabel"}, "0/1 labels (a, b)"),
        (("0", "1"), {"positive_from": 1}, "positive from 1"),
    ],
)
def test_anything_but_two_classes_of_one_label_is_refused(classes, options, why):
    with pytest.raises(ConfigError, match="needs two classes and one label per image") as refused:
        find("a", classes, **options)
    assert why in str(refused.value) and "Leave --positive-class out" in str(refused.value)
