"""Folds of several labels, which the columns of a run's `folds.csv` cannot hold."""

import numpy as np
import pytest
from PIL import Image

from radtransfer.config.load import load_config
from radtransfer.config.schema import DataSettings, SplitSettings
from radtransfer.data.check import split_data, write_split
from radtransfer.data.readers import read_table
from radtransfer.data.splits import assign_folds
from radtransfer.errors import ConfigError


def write_table(path, names):
    rows = [
        f"{i:02d}.png,{i % 2},{'' if i % 7 == 0 else i // 2 % 2},{-1 if i % 5 == 0 else i % 3 % 2}" for i in range(60)
    ]
    path.write_text("\n".join([f"path,{names}", *rows]))
    return path


def test_several_labels_read_back_with_the_same_folds_and_targets(tmp_path):
    options = {"data.source": str(write_table(tmp_path / "t.csv", "edema,mass,node")), "data.unmentioned": "ignore"}
    split = split_data(load_config(options=options))
    write_split(split, tmp_path / "folds.csv")
    table = read_table(DataSettings(source=str(tmp_path / "folds.csv"), task="multilabel"))
    assert table.classes == ("edema", "mass", "node")
    again = assign_folds(table, SplitSettings(), seed=9, allow_leakage=False)
    assert len(again) == 5
    for fold, same in zip(split.folds, again, strict=True):
        assert dict(zip(split.table.paths, fold.split, strict=True)) == dict(zip(table.paths, same.split, strict=True))
    rows = {path: [str(value) for value in row] for path, row in zip(table.paths, table.targets.tolist(), strict=True)}
    for path, row in zip(split.table.paths, split.table.targets.tolist(), strict=True):
        assert rows[path] == [str(value) for value in row]


def test_a_label_called_like_a_column_is_refused(tmp_path):
    source = str(write_table(tmp_path / "t.csv", "label,mass,node"))
    options = {"data.source": source, "data.label_column": ("label", "mass", "node")}
    with pytest.raises(ConfigError, match="'label'"):
        write_split(split_data(load_config(options=options)), tmp_path / "folds.csv")
    assert not (tmp_path / "folds.csv").exists()


def test_the_folder_of_all_images_is_told(tmp_path):
    for name in ("a/1.png", "a/2.png", "a/3.png", "b/1.png", "b/2.png", "b/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    split = split_data(
        load_config(options={"data.source": str(tmp_path), "splits.folds": 3, "splits.val_fraction": 0.5})
    )
    assert split.image_root == tmp_path


def test_frames_of_a_file_lie_where_the_file_does(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(6):
        frames = [Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8)) for _ in range(2)]
        file = tmp_path / "ab"[i % 2] / f"{i}.tif"
        file.parent.mkdir(exist_ok=True)
        frames[0].save(file, save_all=True, append_images=frames[1:])
    options = {"data.source": str(tmp_path), "data.frames": "all", "splits.folds": 3, "splits.val_fraction": 0.5}
    split = split_data(load_config(options=options))
    assert split.image_root == tmp_path
    write_split(split, tmp_path / "folds.csv")
    table = read_table(DataSettings(source=str(tmp_path / "folds.csv"), image_root=str(tmp_path)))
    assert dict(zip(table.paths, table.files, strict=True)) == dict(
        zip(split.table.paths, split.table.files, strict=True)
    )
