from radtransfer.cli.terminal import TerminalProgress, safe_text

HOSTILE = "a\x1b]0;owned\x07\x1b[2J\r\x9b\u202e\udcff.png\nß\t日本"


def test_what_steers_a_terminal_is_shown_and_not_sent(capsys):
    progress = TerminalProgress()
    progress.note(HOSTILE)
    progress.plan({"data": HOSTILE})
    shown = capsys.readouterr().err
    assert not {"\x1b]", "\x07", "\r", "\x9b", "\u202e", "\udcff"} & set(shown)
    assert "\x1b]0" not in shown and r"a\x1b]0;owned\x07" in shown
    assert "ß\t日本" in shown


def test_plain_text_stays_as_it_is():
    assert safe_text("Größe 3 × 4\n\tok") == "Größe 3 × 4\n\tok"
