from pathlib import Path

from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports


def test_the_contracts_on_imports_in_pyproject_are_kept(capsys):
    status = lint_imports(str(Path(__file__).parents[2] / "pyproject.toml"), no_cache=True)
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out
