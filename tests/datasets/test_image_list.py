import pytest
from PIL import Image

from radtransfer.config.schema import DataSettings
from radtransfer.data.image_list import list_images, read_images
from radtransfer.data.readers import read_table
from radtransfer.errors import DataError
from radtransfer.images.refs import FilePart


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two images below `a`, one with two pages beside it, a table of two images one of which is missing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a" / "deep").mkdir(parents=True)
    picture = Image.new("L", (8, 8))
    picture.save("a/one.png")
    picture.save("a/deep/two (2).png")
    picture.save("pages.tif", save_all=True, append_images=[picture])
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "list.csv").write_text("id,image path\n1,one.png\n2,/elsewhere/two (2).png\n3,gone.png\n1,one.png\n")
    return tmp_path


def test_files_folders_and_tables_are_named_as_the_user_named_them(folder):
    found = list_images(["pages.tif", "a"], DataSettings())
    assert found.paths == ("pages.tif", "a/deep/two (2).png", "a/one.png")
    assert all(place.is_file() for place in found.files)


def test_a_table_has_the_paths_as_it_writes_them_and_needs_no_labels(folder):
    found = list_images(["list.csv"], DataSettings(image_root="a"))
    assert found.paths == ("one.png", "/elsewhere/two (2).png", "gone.png")
    assert found.files == (folder / "a/one.png", folder / "a/deep/two (2).png", None)


def test_an_image_that_is_named_twice_comes_once(folder):
    assert list_images(["a/one.png", "a", "a/one.png"], DataSettings()).paths == ("a/one.png", "a/deep/two (2).png")


def test_frames_are_images_if_asked_for_or_named(folder):
    assert list_images(["pages.tif"], DataSettings(frames="all")).paths == ("pages.tif#1", "pages.tif#2")
    (place,) = list_images(["pages.tif#2"], DataSettings()).files
    assert place == FilePart(folder / "pages.tif", frame=1)


@pytest.mark.parametrize(
    ("name", "words"), [("gone.png", "No image at gone.png"), ("empty", "empty contains no images")]
)
def test_what_is_not_there_is_named(folder, name, words):
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match=words):
        list_images([name], DataSettings())


def test_a_table_without_a_column_of_paths_is_explained(folder):
    (folder / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="--path-column"):
        list_images(["other.csv"], DataSettings())
    with pytest.raises(DataError, match="Column 'imag'"):
        list_images(["list.csv"], DataSettings(path_column="imag"))


def test_a_folder_lists_dangling_links_and_formats_that_are_not_read(folder):
    (folder / "a" / "gone.png").symlink_to("../.git/annex/objects/1.png")
    (folder / "a" / "photo.heic").write_bytes(b"x")
    assert list_images(["a"], DataSettings()).paths == (
        *("a/deep/two (2).png", "a/gone.png", "a/one.png"),
        "a/photo.heic",
    )
    noted = list_images(["a"], DataSettings(), unread=False)
    assert noted.paths == ("a/deep/two (2).png", "a/gone.png", "a/one.png")
    assert noted.notes == ("1 HEIC not read ('photo.heic': save it as PNG or JPEG)",)
    assert list_images(["a/gone.png"], DataSettings()).files == (folder / "a/gone.png",)


@pytest.mark.parametrize(
    ("source", "paths"),
    [
        ("a", ("a/deep/two (2).png", "a/one.png")),  # one class folder, and an image beside it
        ("a/one.png", ("a/one.png",)),
        ("list.csv", ("a/one.png", "a/deep/two (2).png", "gone.png")),
        ("empty labels.csv", ("a/one.png", "pages.tif")),
        ("one label.txt", ("a/one.png", "pages.tif")),
        ("folds", ("../pages.tif", "../a/one.png")),
    ],
)
def test_what_needs_no_labels_reads_images_that_have_none(folder, source, paths):
    (folder / "list.csv").write_text("image\na/one.png\na/deep/two (2).png\ngone.png\n")
    (folder / "empty labels.csv").write_text("path,label\na/one.png,\npages.tif,\n")
    (folder / "one label.txt").write_text("path,label\na/one.png,test\npages.tif,test\n")
    (folder / "folds").mkdir()
    (folder / "folds" / "train.csv").write_text("path\n../a/one.png\n")
    (folder / "folds" / "test.csv").write_text("path\n../pages.tif\n")
    with pytest.raises(DataError):
        read_table(DataSettings(source=source))
    table = read_images(DataSettings(source=source))
    assert table.paths == paths
    assert table.classes == () and table.targets.shape == (len(paths), 0)
    assert table.notes[0].startswith("read without labels: ")


def test_labels_and_patients_are_kept_where_they_can_be_read(folder):
    (folder / "t.csv").write_text("path,label,patient\na/one.png,x,7\npages.tif,y,7\n")
    assert read_images(DataSettings(source="t.csv")).classes == ("x", "y")
    (folder / "t.csv").write_text("path,patient\na/one.png,7\npages.tif,7\n")
    assert read_images(DataSettings(source="t.csv")).patients == ("7", "7")


@pytest.mark.parametrize(
    "settings", [{"source": "t.csv", "label_column": ("labl",)}, {"source": "gone"}, {"source": "busi:a"}]
)
def test_what_is_asked_for_and_is_not_there_is_an_error_all_the_same(folder, settings):
    (folder / "t.csv").write_text("path\na/one.png\n")
    with pytest.raises(DataError) as caught:
        read_images(DataSettings(**settings))
    with pytest.raises(DataError) as plain:
        read_table(DataSettings(**settings))
    assert str(caught.value) == str(plain.value)


def test_patients_of_images_without_labels_are_checked_as_those_of_others(folder):
    (folder / "t.csv").write_text("path,patient\na/one.png,07\npages.tif,7\n")
    with pytest.raises(DataError, match="1 patient has several spellings"):
        read_images(DataSettings(source="t.csv"))
    found = read_images(DataSettings(source="t.csv", allow_alike_patients=True))
    assert found.groups == ("07", "7")
    (folder / "t.csv").write_text("path,patient\na/one.png,NA\npages.tif,7\n")
    with pytest.raises(DataError, match="1 rows have no patient"):
        read_images(DataSettings(source="t.csv", missing_patients="error"))
    assert read_images(DataSettings(source="t.csv")).groups == ("a/one.png", "7")
