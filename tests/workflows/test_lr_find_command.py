import csv
import json
import math

import pytest


@pytest.fixture(scope="module")
def found(radtransfer, table_options, tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    options = table_options[:-2]  # without a learning rate
    command = ("lr-find", *options, "--from", "1e-5", "--to", "10", "--steps", 90, "--folds", 2, "--json")
    outcome = radtransfer(*command, "--out", folder / "one")
    assert outcome.code == 0, outcome.err
    return command, folder, outcome


def test_a_search_writes_its_curve_and_no_run(found):
    _, folder, outcome = found
    result = json.loads(outcome.out)
    assert sorted(path.name for path in (folder / "one").iterdir()) == [
        f"rates.{s}" for s in ("csv", "json", "png", "svg")
    ]
    assert json.loads((folder / "one" / "rates.json").read_text()) == result
    with (folder / "one" / "rates.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates[0] == 1e-5 and result["steps"] == len(rows) <= 90
    assert rates[1] / rates[0] == pytest.approx(10 ** (6 / 89))
    assert all(math.isfinite(float(row["loss"])) for row in rows)
    assert result["rule"] and result["caveat"]
    assert "learning rate 1e-05 to 10 in 90 steps on the training images of fold 1" in outcome.err


def test_the_same_settings_give_the_same_losses(found, radtransfer):
    command, folder, _ = found
    assert radtransfer(*command, "--out", folder / "two").code == 0
    assert (folder / "one" / "rates.csv").read_bytes() == (folder / "two" / "rates.csv").read_bytes()


def test_an_earlier_search_is_replaced_only_if_told_to(found, radtransfer):
    command, folder, _ = found
    out = folder / "earlier"
    out.mkdir()
    (out / "rates.json").write_text("earlier")
    refused = radtransfer(*command, "--out", out)
    assert refused.code == 2 and "rates.json exists. Use --overwrite to replace it, or another --out." in refused.err
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [("rates.json", "earlier")]
    assert radtransfer(*command, "--out", out, "--overwrite").code == 0
    assert (out / "rates.json").read_bytes() == (folder / "one" / "rates.json").read_bytes()


def test_a_recipe_without_a_rate_can_be_searched_for_one(radtransfer, table_options, tmp_path):
    options = [item for item in table_options[:-2] if item not in ("--batch-size", "8")]
    outcome = radtransfer(
        *("lr-find", *options, "--recipe", "mei", "--batch-size", 8, "--augmentation", "none"),
        *("--from", "1e-4", "--to", "1e-1", "--steps", 36, "--out", tmp_path / "out"),
    )
    assert outcome.code == 0, outcome.err
    assert "suggested  " in outcome.out and "caveat  " in outcome.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--from", "1e-3", "--to", "5e-3"), "--to at least ten times --from"),
        (("--from", "0"), "Expected rates above 0"),
        (("--from", "1e-9", "--to", "1", "--steps", "50"), "too few: give --steps 92 or more"),
    ],
)
def test_rates_that_make_no_test_are_refused(radtransfer, table_options, tmp_path, words, message):
    outcome = radtransfer("lr-find", *table_options[:-2], *words, "--out", tmp_path / "out")
    assert outcome.code == 2 and message in outcome.err
    assert not (tmp_path / "out").exists()
