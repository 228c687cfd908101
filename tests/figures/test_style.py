import pytest

from radtransfer.errors import ConfigError
from radtransfer.reports.figures import COLORS, FORMATS, line_style, new_figure, save_figure


def drawing():
    figure, (axes,) = new_figure()
    axes.plot([0, 1], [0, 1], label="a", **line_style(0))
    axes.legend()
    return figure


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_same_values_give_the_same_bytes(tmp_path, suffix):
    for name in "ab":
        save_figure(drawing(), tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_a_suffix_that_is_no_format_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"\.png, \.svg, \.pdf\. Received: .*curve\.jpg"):
        save_figure(drawing(), tmp_path / "curve.jpg")
    assert list(tmp_path.iterdir()) == []


def test_a_figure_leaves_matplotlib_as_it_was(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    save_figure(drawing(), tmp_path / "a.png")
    assert dict(matplotlib.rcParams) == before


def test_lines_differ_in_more_than_colour():
    styles = [line_style(number) for number in range(len(COLORS))]
    assert len({(style["marker"], style["linestyle"]) for style in styles}) == len(styles)
