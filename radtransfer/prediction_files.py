"""What a comparison of predictions leaves in a folder."""

from pathlib import Path

from radtransfer.compare_predictions import ROW_COLUMNS, PredictionComparison
from radtransfer.comparison_folder import check_out
from radtransfer.figures.prediction_agreement import prediction_agreement
from radtransfer.figures.style import save_figure
from radtransfer.runs import write_json, write_rows


def write_predictions(comparison: PredictionComparison, out: Path) -> list[Path]:
    """Write `predictions.csv` (a line per image), `predictions.json` and `predictions.png`.

    Raises:
        RunError: As `check_out`.
    """
    check_out(out)
    out.mkdir(parents=True, exist_ok=True)
    written = [out / f"predictions.{suffix}" for suffix in ("csv", "json", "png")]
    write_rows(written[0], ROW_COLUMNS, comparison.rows)
    write_json(written[1], comparison.to_dict())
    columns = dict(zip(ROW_COLUMNS, zip(*comparison.rows, strict=True), strict=True))
    a, b = comparison.accuracy_a, comparison.accuracy_b
    figure = prediction_agreement(
        columns["p_truth_a"],
        columns["p_truth_b"],
        right_a=columns["right_a"],
        right_b=columns["right_b"],
        independent=[a * b, a * (1 - b), (1 - a) * b, (1 - a) * (1 - b)],
        title_a=Path(comparison.settings["a"]).name,
        title_b=Path(comparison.settings["b"]).name,
    )
    save_figure(figure, written[2])
    return written
