import pytest

from radtransfer.errors import RunError
from radtransfer.result_folder import check_new, check_out, delete_others, make_out


def test_a_folder_is_made_with_its_parents(tmp_path):
    make_out(tmp_path / "a" / "b")
    make_out(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_checking_makes_nothing(tmp_path):
    check_out(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "run", "below a file"])
def test_a_run_or_a_file_is_refused(tmp_path, kind):
    out = tmp_path / "out"
    if kind == "run":
        out.mkdir()
        (out / "run.json").write_text("{}")
    else:
        out.write_text("")
        out = out / "below" if kind == "below a file" else out
    with pytest.raises(RunError, match="Choose another"):
        check_out(out)


def test_an_earlier_result_is_refused_unless_it_may_be_replaced(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    check_new(tmp_path, ["a.csv", "b.csv"], overwrite=False)
    (tmp_path / "b.csv").write_text("")
    check_new(tmp_path, ["a.csv", "b.csv"], overwrite=True)
    with pytest.raises(RunError, match=r"b\.csv exists\. Use --overwrite"):
        check_new(tmp_path, ["a.csv", "b.csv"], overwrite=False)


def test_a_star_stands_for_any_letters(tmp_path):
    (tmp_path / "cross_cka.png").write_text("")
    check_new(tmp_path / "nowhere", ["cross_*.png"], overwrite=False)
    with pytest.raises(RunError, match=r"cross_cka\.png exists"):
        check_new(tmp_path, ["a.csv", "cross_*.png"], overwrite=False)


def test_what_an_earlier_result_left_is_deleted_and_other_files_stay(tmp_path):
    for name in ("a.csv", "cross_cca.png", "cross_cka.png", "notes.txt"):
        (tmp_path / name).write_text("")
    delete_others(tmp_path, ["a.csv", "b.csv", "cross_*.png"], [tmp_path / "cross_cca.png"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cross_cca.png", "notes.txt"]
