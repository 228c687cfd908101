import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from radtransfer import similarity
from radtransfer.errors import RadtransferError, SimilarityError, UnknownNameError
from radtransfer.similarity import SIMILARITIES


@pytest.mark.parametrize("name", list(SIMILARITIES))
def test_every_entry_compares_rows_and_says_what_it_is(layers, name):
    measure = SIMILARITIES[name]
    result = measure.of_rows(*layers)
    assert 0 < result.value < 1
    assert isinstance(result.value, float)
    assert result.rows == len(layers[0])
    assert (result.constant_x, result.constant_y) == ((), ())
    assert 0 < result.rank_x <= layers[0].shape[1]
    assert measure.title


@pytest.mark.parametrize("name", [name for name in SIMILARITIES if SIMILARITIES[name].chance])
def test_chance_is_below_what_related_layers_score(layers, name):
    measure = SIMILARITIES[name]
    result = measure.of_rows(*layers)
    assert -1e-12 <= measure.chance(result.rows, result.rank_x, result.rank_y) < result.value


def test_an_unknown_measure_is_an_error_with_the_closest_names():
    with pytest.raises(UnknownNameError, match="pwcca"):
        SIMILARITIES["pwca"]


def test_no_public_name_is_also_a_module():
    modules = {path.stem for path in Path(similarity.__file__).parent.glob("*.py")}
    assert modules.isdisjoint(similarity.__all__)
    for name in similarity.__all__:
        assert not isinstance(getattr(similarity, name), type(sys))


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="paprika"):
        similarity.paprika  # noqa: B018


def test_listing_the_measures_imports_no_numpy_and_using_them_no_tensorflow():
    script = (
        "import sys; from radtransfer.similarity import SIMILARITIES; list(SIMILARITIES)\n"
        "before = 'numpy' in sys.modules\n"
        "[SIMILARITIES[name] for name in SIMILARITIES]\n"
        "print(before, sorted({'tensorflow', 'keras', 'scipy', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "False []"


def test_its_error_ends_a_command_like_other_unusable_data():
    assert issubclass(SimilarityError, RadtransferError)
    assert SimilarityError.exit_code == 3


def test_arguments_are_not_changed(make_layers):
    x, y = make_layers(0, 300, 6, 6)
    copies = x.copy(), y.copy()
    for name in SIMILARITIES:
        SIMILARITIES[name].of_rows(x, y)
    np.testing.assert_array_equal(x, copies[0])
    np.testing.assert_array_equal(y, copies[1])
