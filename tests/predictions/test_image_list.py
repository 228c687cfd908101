import pytest
from PIL import Image

from radtransfer.errors import DataError
from radtransfer.image_place import FilePart
from radtransfer.predictions.image_list import list_images
from radtransfer.settings import DataSettings


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
    assert all(place.is_file() for place in found.places)


def test_a_table_has_the_paths_as_it_writes_them_and_needs_no_labels(folder):
    found = list_images(["list.csv"], DataSettings(image_root="a"))
    assert found.paths == ("one.png", "/elsewhere/two (2).png", "gone.png")
    assert found.places == (folder / "a/one.png", folder / "a/deep/two (2).png", None)


def test_an_image_that_is_named_twice_comes_once(folder):
    assert list_images(["a/one.png", "a", "a/one.png"], DataSettings()).paths == ("a/one.png", "a/deep/two (2).png")


def test_frames_are_images_if_asked_for_or_named(folder):
    assert list_images(["pages.tif"], DataSettings(frames="all")).paths == ("pages.tif#1", "pages.tif#2")
    (place,) = list_images(["pages.tif#2"], DataSettings()).places
    assert place == FilePart(folder / "pages.tif", frame=1)


@pytest.mark.parametrize(("name", "words"), [("gone.png", "No image at gone.png"), ("empty", "empty holds no images")])
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
