"""Commands that write results into a folder leave earlier ones there alone, unless told otherwise."""

import pytest

COMMANDS = {
    "evaluate": (("evaluate", "RUN", "--draws", 100), "predictions.csv", "seen.csv"),
    "explain": (
        ("explain", "RUN/fold_1", "--layer", "stage1", "--limit", 1, "--occlusion", 0),
        "explanations.csv",
        "overlays/009_old.png",
    ),
    "compare-cca": (
        ("compare-cca", "RUN@initial", "RUN@final", "--rows", 400, "--dims", 4, "--repeats", 1, "--layers", "stem"),
        "similarity.csv",
        "cross_cka.png",
    ),
    "compare-weights": (("compare-weights", "RUN@initial", "RUN@final"), "weights.csv", None),
    "compare-predictions": (("compare-predictions", "RUN", "RUN", "--draws", 100), "predictions.csv", None),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_an_earlier_result_is_replaced_only_when_told(radtransfer, finished_run, tmp_path, command):
    arguments, name, stale = COMMANDS[command]
    arguments = [str(item).replace("RUN", str(finished_run.path)) for item in arguments]
    earlier = [tmp_path / item for item in (name, stale, "notes.txt") if item]
    for path in earlier:
        path.parent.mkdir(exist_ok=True)
        path.write_text("earlier")
    refused = radtransfer(*arguments, "--out", tmp_path)
    assert (refused.code, refused.out) == (2, "")
    assert "exists. Use --overwrite to replace it, or another --out." in refused.err
    assert "images" not in refused.err
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(earlier)
    assert all(path.read_text() == "earlier" for path in earlier)
    replaced = radtransfer(*arguments, "--out", tmp_path, "--overwrite")
    assert replaced.code == 0, replaced.err
    assert earlier[0].read_text() != "earlier"
    assert stale is None or not earlier[1].exists()
    assert earlier[-1].read_text() == "earlier"
