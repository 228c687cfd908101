import json

import numpy as np
import pytest

from radtransfer.errors import ConfigError
from radtransfer.evaluation.extract import check_feature_file, feature_file

BATCHES = [(["a.png", "b ä.png"], 0), (["c.png"], 2)]
FEATURES = np.random.default_rng(0).random((3, 2, 2, 4), np.float32)


def write(path):
    with feature_file(path, layer="conv1", shape=(2, 2, 4)) as add:
        for names, start in BATCHES:
            add(names, FEATURES[start : start + len(names)])


def test_numpy_reads_the_npz_back(tmp_path):
    write(tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz") as found:
        assert found["paths"].tolist() == ["a.png", "b ä.png", "c.png"]
        assert (found["features"] == FEATURES).all()
        assert found["features"].dtype == np.float32
        assert found["layer"] == "conv1"
    assert [item.name for item in tmp_path.iterdir()] == ["f.npz"]


def test_no_images_are_no_rows(tmp_path):
    with feature_file(tmp_path / "f.npz", layer="conv1", shape=(5,)):
        pass
    with np.load(tmp_path / "f.npz") as found:
        assert found["features"].shape == (0, 5)


def test_pyarrow_reads_the_parquet_back(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    write(tmp_path / "f.parquet")
    found = pq.read_table(tmp_path / "f.parquet")
    assert found["path"].to_pylist() == ["a.png", "b ä.png", "c.png"]
    shape = json.loads(found.schema.metadata[b"shape"])
    assert (np.array(found["features"].to_pylist(), np.float32).reshape(3, *shape) == FEATURES).all()
    assert found.schema.metadata[b"layer"] == b"conv1"


@pytest.mark.parametrize("name", ["f.npz", "f.parquet"])
def test_a_failure_leaves_nothing(tmp_path, name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(RuntimeError), feature_file(tmp_path / name, layer="conv1", shape=(2, 2, 4)) as add:
        add(["a.png"], FEATURES[:1])
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_another_format_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"\.npz or \.parquet"):
        check_feature_file(tmp_path / "f.csv")


def test_a_missing_pyarrow_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match=r"pip install 'radtransfer\[parquet\]'"):
        check_feature_file(tmp_path / "f.parquet")
