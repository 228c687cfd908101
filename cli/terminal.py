"""How progress looks: a bar on a terminal, one line per epoch elsewhere; all of it on stderr."""

import shutil
import sys
import time
from collections.abc import Mapping
from typing import Any

import click

from radtransfer.progress import Progress


def safe_text(text: str) -> str:
    """`text` without what would steer the terminal: names of files, labels and columns may hold anything."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else ascii(letter)[1:-1] for letter in text)


class TerminalProgress(Progress):
    """Prints the plan block, notes, a progress bar and epoch lines on stderr."""

    def __init__(self) -> None:
        self._bar_shown = False
        self._drawn_at = 0.0
        self._started = time.monotonic()

    def plan(self, rows: Mapping[str, str]) -> None:
        for title, text in rows.items():
            indented = safe_text(text).replace("\n", f"\n{'':<10}")
            self._line(f"{click.style(f'{title:<10}', bold=True)}{indented}")
        self._started = time.monotonic()

    def note(self, text: str) -> None:
        self._line(f"{click.style('note', fg='yellow')}      {safe_text(text)}")

    def warning(self, text: str) -> None:
        self._line(f"{click.style('warning', fg='yellow', bold=True)}   {safe_text(text)}")

    def count(self, what: str, done: int, total: int) -> None:
        if not sys.stderr.isatty() or (done < total and time.monotonic() - self._drawn_at < 0.1):
            return
        self._drawn_at = time.monotonic()
        width = shutil.get_terminal_size().columns - 1
        filled = "#" * (24 * done // max(total, 1))
        line = f"{what} [{filled:<24}] {done}/{total}"
        click.echo(f"\r{line:<{width}.{width}}", err=True, nl=False)
        self._bar_shown = True

    def epoch(self, fold: int, folds: int, epochs: int, row: Mapping[str, Any]) -> None:
        auc = "   n/a" if row["val_auc"] is None else f"{row['val_auc']:6.3f}"
        best = click.style("*", fg="green", bold=True) if row["best"] else " "
        self._line(
            f"fold {fold}/{folds}  epoch {row['epoch']:>{len(str(epochs))}}/{epochs}  "
            f"loss {row['loss']:.4f}  val_loss {row['val_loss']:.4f}  val_auc {auc} {best} "
            f"lr {row['learning_rate']:.2e}  {row['seconds']:.1f} s"
        )

    def fold(self, fold: int, folds: int, metrics: Mapping[str, Any]) -> None:
        auc = "n/a" if metrics["auc"] is None else f"{metrics['auc']:.3f}"
        self._line(
            f"fold {fold}/{folds}  test AUC {auc} on {metrics['n_images']} images, best epoch {metrics['best_epoch']}"
        )

    def clear(self) -> None:
        """Take the bar away, before a result is printed."""
        if self._bar_shown:
            click.echo("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r", err=True, nl=False)
            self._bar_shown = False

    def _line(self, text: str) -> None:
        self.clear()
        click.echo(text, err=True)
