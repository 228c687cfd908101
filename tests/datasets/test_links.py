"""No folder of data is left by a link, unless the user says so."""

import pytest
from click.testing import CliRunner
from PIL import Image

from radtransfer.cli.main import application
from radtransfer.config.schema import DataSettings
from radtransfer.data.image_list import list_images, read_images, read_leniently
from radtransfer.data.readers import DATASETS, read_table
from radtransfer.errors import DataError

FOLDERS = [name for name in DATASETS if name not in ("csv_table", "synthetic_fundus")]


def make_images(folder, *names):
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), i).save(folder / name)


@pytest.fixture
def folder(tmp_path):
    """A folder of images, beside which an image lies elsewhere."""
    make_images(tmp_path, "root/a/1.png", "root/b/2.png", "elsewhere/3.png", "roots/4.png")
    return tmp_path / "root"


def link_out(folder):
    (folder / "b" / "image.png").symlink_to("../../elsewhere/3.png")
    (folder / "b" / "more").symlink_to(folder.parent / "roots")
    return r"2 links point outside .*/root, such as 'b/image.png' to '.*/elsewhere/3.png'.*--outside-root"


@pytest.mark.parametrize("name", FOLDERS)
def test_a_link_out_of_the_folder_of_any_data_set_is_refused(folder, name):
    if name == "fold_directory":
        (folder / "train.csv").symlink_to("../elsewhere/3.png")
        message = "1 link points outside .*'train.csv'"
    else:
        message = link_out(folder)
    with pytest.raises(DataError, match=message) as refused:
        read_table(DataSettings(source=f"{name}:{folder}"))
    assert refused.value.exit_code == 3


def listed(settings):
    return list_images([settings.source], settings)


def lenient(settings):
    table, mistakes = read_leniently(settings)
    if table is None:
        raise DataError(mistakes[0].message)
    return table


@pytest.mark.parametrize("read", [read_table, read_images, listed, lenient])
def test_what_links_lead_to_is_read_with_outside_root_alone(folder, read):
    with pytest.raises(DataError, match=link_out(folder)):
        read(DataSettings(source=str(folder)))
    paths = read(DataSettings(source=str(folder), outside_root=True)).paths
    assert [path.rpartition("root/")[2] for path in paths] == ["a/1.png", "b/2.png", "b/image.png", "b/more/4.png"]


def test_links_within_the_folder_are_followed_also_where_the_folder_is_a_link(folder):
    (folder / "b" / "again.png").symlink_to("../a/1.png")
    (folder / "b" / "around").symlink_to(folder)
    (folder / "b" / "circle").symlink_to("circle")
    (folder.parent / "link").symlink_to(folder)
    for source in (folder, folder.parent / "link"):
        assert read_table(DataSettings(source=str(source))).paths == ("a/1.png", "b/2.png", "b/again.png")


def test_hidden_links_and_links_to_nothing_are_no_way_out(folder):
    (folder / ".git").symlink_to(folder.parent / "elsewhere")
    (folder / "b" / "gone.png").symlink_to("../../.git/annex/objects/1.png")
    assert read_table(DataSettings(source=str(folder))).paths == ("a/1.png", "b/2.png", "b/gone.png")


def make_tables(folder, line):
    folder.mkdir()
    for i, split in enumerate(("train", "val", "test")):
        (folder / f"{split}.csv").write_text(f"path,label\n{line.format(i)},a\n../root/a/1.png,b\n")
    make_images(folder.parent, *(f"elsewhere/{i}.png" for i in range(3)))


@pytest.mark.parametrize("read", [read_table, read_images, lenient])
def test_images_of_a_folder_of_tables_are_not_looked_up_through_a_link_out_of_it(folder, read):
    tables = folder.parent / "tables"
    make_tables(tables, "images/{}.png")
    (tables / "images").symlink_to(folder.parent / "elsewhere")
    for source in (tables, folder / ".." / "tables"):
        with pytest.raises(DataError, match="1 link points outside .*/tables, such as 'images' to '.*/elsewhere'"):
            read(DataSettings(source=str(source)))
    assert all(read(DataSettings(source=str(tables), outside_root=True)).files)


def test_a_path_that_the_users_own_table_names_is_taken_at_its_word(folder):
    make_tables(folder.parent / "tables", "../elsewhere/{}.png")
    assert all(read_table(DataSettings(source=str(folder.parent / "tables"))).files)
    (folder / "linked").symlink_to(folder.parent / "elsewhere")
    (folder / "t.csv").write_text("path,label\nlinked/3.png,a\na/1.png,b\n")
    assert all(read_table(DataSettings(source=str(folder / "t.csv"))).files)


def test_the_search_for_the_images_of_a_table_does_not_leave_the_folder_by_a_link(folder):
    (folder / "linked").symlink_to(folder.parent / "elsewhere")
    (folder / "t.csv").write_text("path,label\n/far/3.png,a\n/far/1.png,b\n")
    table = read_table(DataSettings(source=str(folder / "t.csv")))
    assert table.files == (None, folder / "a" / "1.png")
    assert any("1 link points outside" in note and "--outside-root" in note for note in table.notes)
    assert all(read_table(DataSettings(source=str(folder / "t.csv"), outside_root=True)).files)


def test_the_tables_of_a_public_set_name_no_image_outside_of_it(tmp_path):
    make_images(tmp_path, "outside.png", "set/train_images/b.png")
    (tmp_path / "set" / "train.csv").write_text("id_code,diagnosis\n../../outside,0\nb,1\n")
    with pytest.raises(
        DataError, match=r"1 paths in the tables of .* point outside it, such as 'train_images/\.\./\.\./out"
    ):
        read_table(DataSettings(source=f"aptos2019:{tmp_path / 'set'}"))


def test_a_command_is_refused_and_the_next_one_is_told_what_was_allowed(folder):
    command = ["data", "split", str(folder), "--folds", "2", "--out", str(folder.parent / "folds.csv")]
    make_images(folder, *(f"{label}/{i}.png" for label in "ab" for i in range(5, 15)))
    link_out(folder)
    refused = CliRunner().invoke(application, command)
    assert refused.exit_code == 3 and "2 links point outside" in refused.stderr and "--outside-root" in refused.stderr
    assert not (folder.parent / "folds.csv").exists()
    allowed = CliRunner().invoke(application, [*command, "--outside-root"])
    assert allowed.exit_code == 0 and f"--image-root {folder} --outside-root" in allowed.stderr


@pytest.mark.parametrize(
    "command",
    [
        *["finetune", "study", "predict", "extract", "evaluate", "explain", "compare-cca", "lr-find"],
        *[
            "freeze-sweep",
            "transfusion-sweep",
            "data check",
            "data split",
            "data prepare",
            "data preview",
            "weights check",
        ],
    ],
)
def test_every_command_that_reads_folders_takes_outside_root(command):
    pages = [CliRunner().invoke(application, [*command.split(), option]).stdout for option in ("--help", "--help-all")]
    assert any("--outside-root" in page for page in pages)
