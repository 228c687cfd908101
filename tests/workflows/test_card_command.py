def test_a_card_is_printed_or_written_and_never_over_another_file(radtransfer, finished_run, tmp_path):
    outcome = radtransfer("card", finished_run.path, "--fold", 1)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("# Model card: cbr_tiny, run finished, fold 1")
    assert "cbr_tiny, 1,079,520 backbone parameters" in outcome.out
    written = radtransfer("card", finished_run.path / "fold_1", "--out", tmp_path / "new" / "card.md")
    assert written.code == 0, written.err
    assert (tmp_path / "new" / "card.md").read_text() == outcome.out
    again = radtransfer("card", finished_run.path / "fold_1", "--out", tmp_path / "new" / "card.md")
    assert again.code == 2
    assert "exists" in again.err


def test_the_fold_must_be_named_where_there_are_several(radtransfer, finished_run):
    outcome = radtransfer("card", finished_run.path)
    assert outcome.code == 2
    assert "Finished folds: 1, 2" in outcome.err
