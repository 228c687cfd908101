"""The folder that a comparison writes its tables and figures to."""

from pathlib import Path

from radtransfer.errors import RunError


def check_out(out: Path) -> None:
    """See that results can be written to a folder, before anything is computed.

    Raises:
        RunError: It is a run, or a file.
    """
    if (out / "run.json").exists() or out.is_file():
        raise RunError(f"--out {out}: expected a folder for results, received a run or a file. Choose another.")
