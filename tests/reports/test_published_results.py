import pytest
from published_files import LAYERS, change, write_csv, write_published

from radtransfer.errors import DataError
from radtransfer.reports.published import read_published

AUC = ["target", "source", "freeze", "fold", "AUC"]


@pytest.fixture
def folder(tmp_path):
    return write_published(tmp_path / "published")


def lines(path):
    return path.read_text(encoding="utf-8").splitlines()


def test_files_are_known_by_name_and_others_are_ignored(folder):
    for name in ("LICENSE", "auc.csv", "CCA_.csv", "CCA_lung.csv.bak"):
        (folder / name).write_text("nothing", encoding="utf-8")
    (folder / "CCA_old.csv").mkdir()
    found = read_published(folder)
    assert found.files == ["AUC.csv", "CCA_brain-mri.csv", "CCA_lung.csv", "similarity.csv"]
    assert sorted(found.ignored) == ["CCA_.csv", "CCA_lung.csv.bak", "CCA_old.csv", "LICENSE", "auc.csv"]
    assert set(found.targets) == {"lung", "brain-mri"}
    assert found.layers == list(LAYERS)
    assert found.notes == []


@pytest.mark.parametrize("left", ["AUC.csv", "CCA_lung.csv", "similarity.csv"])
def test_any_one_file_is_enough(folder, left):
    for path in folder.iterdir():
        if path.name != left:
            path.unlink()
    assert read_published(folder).files == [left]


def test_a_folder_without_such_files_is_an_error(tmp_path):
    (tmp_path / "notes.txt").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match=r"expected AUC\.csv, .*found notes\.txt"):
        read_published(tmp_path)
    with pytest.raises(DataError, match="Expected a folder"):
        read_published(tmp_path / "gone")


@pytest.mark.parametrize("bad", ["ninety", "95.1", "-0.2", "inf", "0,9"])
def test_a_value_that_is_no_share_names_file_and_line(folder, bad):
    fields = lines(folder / "AUC.csv")[3].split(",")
    change(folder / "AUC.csv", fields[-1], f'"{bad}"')
    with pytest.raises(DataError, match=rf"AUC\.csv, line 4: expected a number from 0 to 1 .*{bad}"):
        read_published(folder)


@pytest.mark.parametrize("name", ["CCA_lung.csv", "similarity.csv"])
def test_every_file_is_checked_line_by_line(folder, name):
    path = folder / name
    path.write_text("\n".join([*lines(path), lines(path)[1].rsplit(",", 1)[0] + ",broken"]) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=rf"{name}, line {len(lines(path))}: .*'broken'"):
        read_published(folder)


@pytest.mark.parametrize("missing", ["", "NaN", "nan", "NA"])
def test_a_value_that_is_missing_is_left_out_with_a_note(folder, missing):
    before = len(read_published(folder).auc)
    change(folder / "AUC.csv", lines(folder / "AUC.csv")[1].split(",")[-1], missing)
    found = read_published(folder)
    assert len(found.auc) == before - 1
    assert found.notes == ["AUC.csv, line 2 (lung, random, freezeFalse, fold1): no value; left out"]


def test_a_layer_without_value_costs_that_layer_only(folder):
    head, first, *others = lines(folder / "CCA_lung.csv")
    fields = first.split(",")
    fields[5] = ""
    (folder / "CCA_lung.csv").write_text("\n".join([head, ",".join(fields), *others]), encoding="utf-8")
    found = read_published(folder)
    assert list(next(pair for pair in found.pairs if pair.target == "lung").values) == ["conv1", "block2"]
    assert found.notes == ["CCA_lung.csv, line 2: no value of block1; left out"]


def test_a_repeated_line_counts_once_and_is_noted(folder):
    path = folder / "AUC.csv"
    before = len(read_published(folder).auc)
    path.write_text("\n".join([*lines(path), lines(path)[1]]), encoding="utf-8")
    found = read_published(folder)
    assert len(found.auc) == before
    assert found.notes[0].endswith("repeats line 2; counted once")


def test_a_line_that_contradicts_another_is_an_error(folder):
    path = folder / "AUC.csv"
    path.write_text("\n".join([*lines(path), lines(path)[1].rsplit(",", 1)[0] + ",0.123"]), encoding="utf-8")
    with pytest.raises(DataError, match="is already in line 2, with another value"):
        read_published(folder)


def test_columns_are_found_by_name_in_any_order(tmp_path):
    (tmp_path / "AUC.csv").write_bytes(
        b"\xef\xbb\xbf,AUC, fold ,note,freeze,source,target\r\n0,0.7,1,x,freezeFalse,a,b\r\n\r\n"
    )
    found = read_published(tmp_path)
    (line,) = found.auc
    assert (line.target, line.source, line.fold, line.value) == ("b", "a", "1", 0.7)
    assert found.notes == ["AUC.csv: columns not used: note"]


def test_other_columns_of_a_cca_file_are_no_layers(tmp_path):
    header = ["model1", "model2", "fold", "conv1", "stage4", "images", "comment"]
    write_csv(tmp_path / "CCA_x.csv", header, [["x-A-freezeFalse", "A", "fold1", 0.5, 0.4, 2000, "good"]])
    found = read_published(tmp_path)
    assert found.layers == ["conv1", "stage4"]
    assert found.notes == ["CCA_x.csv: columns not used: images, comment"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "received nothing. Add target, source, freeze, fold, AUC"),
        (
            "target,source,AUC\n",
            "expected the columns target, source, freeze, fold, AUC, received target, source, AUC",
        ),
        ("target,source,freeze,fold,AUC,AUC\n", "received AUC twice"),
        ("target,source,freeze,fold,AUC\na,b,c,1\n", "line 2: expected 5 fields, as the header has, received 4"),
        ("target,source,freeze,fold,AUC\na,b,c,1,0.5,9\n", "line 2: expected 5 fields, as the header has, received 6"),
        ("target,source,freeze,fold,AUC\n,b,c,1,0.5\n", "line 2: column 'target' is empty"),
    ],
)
def test_a_file_of_another_shape_says_what_is_wrong(tmp_path, text, message):
    (tmp_path / "AUC.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_published(tmp_path)


def test_a_file_that_is_no_text_is_an_error(tmp_path):
    (tmp_path / "AUC.csv").write_bytes(b"\xff\xfe\x00target")
    with pytest.raises(DataError, match=r"AUC\.csv: expected a CSV file in UTF-8"):
        read_published(tmp_path)


def test_a_prob_that_is_not_known_is_an_error(folder):
    change(folder / "similarity.csv", "real", "reall")
    with pytest.raises(DataError, match="line 2: expected 'real' or 'rand' in column 'prob', received 'reall'"):
        read_published(folder)


def test_a_cca_file_needs_a_layer(tmp_path):
    write_csv(tmp_path / "CCA_x.csv", ["model1", "model2", "fold", "p"], [])
    with pytest.raises(DataError, match="expected columns of layers such as conv1"):
        read_published(tmp_path)


def test_a_file_without_lines_is_noted(folder):
    (folder / "AUC.csv").write_text(",".join(AUC) + "\n", encoding="utf-8")
    found = read_published(folder)
    assert found.auc == []
    assert found.notes == ["AUC.csv: no line below the header"]
