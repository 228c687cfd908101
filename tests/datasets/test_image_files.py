"""Image paths from other machines."""

import unicodedata

import pytest

from radtransfer.config.schema import DataSettings
from radtransfer.data.readers import read_table
from radtransfer.errors import BadImageError, DataError
from radtransfer.images.formats import inspect_image


@pytest.fixture
def find(tmp_path):
    """The files that a table's paths lead to, relative to the root, which holds `files`."""

    def read(files, paths, *, outside=()):
        root, tables = tmp_path / "root", tmp_path / "tables"
        for folder, names in ((root, files), (tmp_path, outside)):
            for name in names:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(b"x")
        tables.mkdir()
        rows = "".join(f'"{path}",{i % 2}\n' for i, path in enumerate([*paths, "filler"]))
        (tables / "t.csv").write_text("path,label\n" + rows, encoding="utf-8")
        table = read_table(DataSettings(source=str(tables / "t.csv"), image_root=str(root)))
        read.notes = table.notes
        return [file and file.relative_to(root.absolute()).as_posix() for file in table.files[:-1]]

    return read


def test_a_path_that_exists_below_the_root_is_taken_as_written(find):
    assert find(["a/1.png", "b/1.png"], ["b/1.png", "a/1.png"]) == ["b/1.png", "a/1.png"]


@pytest.mark.parametrize(
    "path", ["../../../data/breast/benign (268).png", "/elsewhere/benign (268).png", r"C:\data\benign (268).png"]
)
def test_a_foreign_path_goes_by_its_file_name(find, path):
    assert find(["images/deep/benign (268).png", "images/notes.txt"], [path]) == ["images/deep/benign (268).png"]
    assert any("1 images found by file name" in note and "ignored: 1" in note for note in find.notes)


def test_of_several_files_the_longest_matching_end_wins(find):
    files = ["x/p1/1.png", "x/p2/1.png", "y/p2/1.png"]
    assert find(files, ["/far/y/p2/1.png", "/far/p1/1.png"]) == ["y/p2/1.png", "x/p1/1.png"]


def test_many_files_of_one_name_are_told_apart_by_their_folders(find):
    files = [f"train/patient{i}/study{j}/view1.jpg" for i in range(5) for j in range(2)]
    assert find(files, [f"CheXpert/{file}" for file in files]) == files


def test_an_ambiguous_name_names_both_candidates(find):
    with pytest.raises(DataError, match="'/far/1.png' is ambiguous: it matches 'a/1.png' and 'b/1.png'"):
        find(["b/1.png", "a/1.png"], ["/far/1.png"])


def test_two_paths_that_lead_to_one_file_by_name_are_refused(find):
    with pytest.raises(DataError, match="'far/benign/1.png' and 'far/malignant/1.png' both match"):
        find(["1.png"], ["far/benign/1.png", "far/malignant/1.png"])


def test_a_name_without_suffix_finds_its_image(find):
    assert find(["10_left.jpeg", "10_right.jpeg", "x/10_left.txt"], ["10_left"]) == ["10_left.jpeg"]


def test_accents_written_in_two_ways_are_the_same_name(find):
    composed, split = (unicodedata.normalize(form, "Müller.png") for form in ("NFC", "NFD"))
    assert find([split], [composed]) == [split]


def test_a_missing_image_is_none(find):
    assert find(["a/1.png"], ["far/2.png"]) == [None]


def test_a_path_that_leads_out_of_the_root_goes_by_its_name(find):
    assert find(["in/1.png"], ["../1.png"], outside=["1.png"]) == ["in/1.png"]


def test_without_a_root_paths_are_relative_to_the_table(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "1.png").write_bytes(b"x")
    (tmp_path / "tables" / "t.csv").write_text("path,label\n../1.png,0\nb.png,1\n")
    table = read_table(DataSettings(source=str(tmp_path / "tables" / "t.csv")))
    assert table.files == (tmp_path / "1.png", None)


def test_a_root_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("path,label\na,0\nb,1\n")
    with pytest.raises(DataError, match="--image-root nowhere is not a folder. Give the folder of"):
        read_table(DataSettings(source=str(tmp_path / "t.csv"), image_root="nowhere"))


@pytest.fixture
def rooted(tmp_path):
    """A table of one path, read below a root beside which a secret file lies."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.png").write_bytes(b"x")
    (tmp_path / "secret.png").write_bytes(b"x")

    def read(path, **settings):
        (tmp_path / "t.csv").write_text(f'path,label\n"{path}",0\na.png,1\n', encoding="utf-8")
        table = read_table(DataSettings(source=str(tmp_path / "t.csv"), image_root=str(root), **settings))
        return table.files[0]

    return read


def way_out(how, tmp_path):
    if how == "link":
        (tmp_path / "root" / "link.png").symlink_to(tmp_path / "secret.png")
    if how == "linked folder":
        (tmp_path / "root" / "more").symlink_to(tmp_path)
    return {
        "absolute": str(tmp_path / "secret.png"),
        "dots": "../secret.png",
        "link": "link.png",
        "linked folder": "more/secret.png",
        "frame": "../secret.png#1",
    }[how]


@pytest.mark.parametrize("how", ["absolute", "dots", "link", "linked folder"])
def test_no_path_and_no_link_leads_out_of_a_named_root_unless_allowed(rooted, tmp_path, how):
    path = way_out(how, tmp_path)
    with pytest.raises(DataError, match="point outside --image-root .*--outside-root"):
        rooted(path)
    assert rooted(path, outside_root=True).resolve() == (tmp_path / "secret.png").resolve()


def test_a_frame_of_a_file_outside_is_not_found(rooted, tmp_path):
    assert rooted(way_out("frame", tmp_path)) is None


def test_an_absolute_path_below_the_root_is_taken(rooted, tmp_path):
    (tmp_path / "root" / "b.png").write_bytes(b"x")
    assert rooted(tmp_path / "root" / "b.png") == tmp_path / "root" / "b.png"


def test_hidden_folders_hold_no_images(tmp_path):
    for name in ("well/a.png", "sick/b.png", "well/.ipynb_checkpoints/a-checkpoint.png", ".thumbnails/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert read_table(DataSettings(source=str(tmp_path))).paths == ("sick/b.png", "well/a.png")


@pytest.mark.parametrize("written", ["a.png", "far/a.png"])
def test_a_dangling_link_in_a_table_is_the_place_of_its_image_also_below_a_named_root(rooted, tmp_path, written):
    (tmp_path / "root" / "a.png").unlink()
    (tmp_path / "root" / "a.png").symlink_to("../.git/annex/objects/1.png")
    (tmp_path / "root" / "other").mkdir()
    (tmp_path / "root" / "other" / "b.png").write_bytes(b"x")
    (tmp_path / "t.csv").write_text(f"path,label\n{written},0\nb.png,1\n")
    table = read_table(DataSettings(source=str(tmp_path / "t.csv"), image_root=str(tmp_path / "root")))
    assert table.files[0] == tmp_path / "root" / "a.png"
    with pytest.raises(BadImageError, match="a dangling link.*datalad get"):
        inspect_image(table.files[0])


@pytest.mark.parametrize(
    ("file", "path"),
    [
        *[("img{}.png", "img{}.JPG"), ("img{}.JPG", "img{}.jpg"), ("IMG{}.png", "far/img{}.png")],
        *[("a b {}.png", "a%20b%20{}.png"), ("a_b-{}.png", "a b {}.png"), ("img{}.png", "'img{}.png'")],
        *[("img{}.heic", "img{}.jpg"), ("img{}.nii.gz", "img{}.png")],
    ],
)
def test_files_that_differ_in_suffix_or_case_are_named_once(find, file, path):
    assert find([file.format(i) for i in range(60)], [path.format(i) for i in range(60)]) == [None] * 60
    (note,) = [note for note in find.notes if "differ in suffix, case or spelling" in note]
    assert note.startswith("60 of 61 missing images are in ")
    assert repr(file.format(0)) in note and repr(path.format(0)) in note


def test_files_of_other_names_are_not_near(find):
    assert find(["img1.png", "12-3.png"], ["img2.png", "1-23.png"]) == [None, None]
    assert not any("differ" in note for note in find.notes)


@pytest.mark.parametrize("path", ["~/a.png", "file://{home}/a.png", r"{home}\a.png", " {home}/a.png "])
def test_paths_of_the_home_folder_addresses_of_files_and_backslashes_are_found(tmp_path, monkeypatch, path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "b.png").write_bytes(b"x")
    (tmp_path / "t.csv").write_text(f"path,label\n{path.format(home=tmp_path)},0\nb.png,1\n")
    assert read_table(DataSettings(source=str(tmp_path / "t.csv"))).files[0] == tmp_path / "a.png"
