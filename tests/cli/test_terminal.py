from radtransfer.cli.terminal import TerminalProgress
from radtransfer.files import printable_lines
from radtransfer.process import Progress

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
    assert printable_lines("Größe 3 × 4\n\tok") == "Größe 3 × 4\n\tok"


def test_a_warning_is_told_from_a_note(capsys):
    progress = TerminalProgress()
    progress.warning(f"leak in {HOSTILE}")
    progress.note("a note")
    warned, noted = capsys.readouterr().err.rsplit("\n", 2)[:2]
    assert warned.startswith("warning   leak in ") and "\x1b]0" not in warned
    assert noted == "note      a note"


def test_who_knows_notes_alone_hears_warnings_as_notes():
    class Notes(Progress):
        def note(self, text):
            heard.append(text)

    heard = []
    Notes().warning("leak")
    assert heard == ["leak"]
