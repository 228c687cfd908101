"""The notebook in `examples/` runs from its first cell to its last."""

import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "first_steps.ipynb"


def test_first_steps(tmp_path, monkeypatch):
    if not NOTEBOOK.is_file():
        pytest.skip("the tests are not in a checkout")
    monkeypatch.chdir(tmp_path)
    names = {}
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)  # noqa: S102
    assert names["pretrained"].metrics["auc"]["pooled"] is not None
    assert (tmp_path / "runs" / "report" / "report.json").is_file()
