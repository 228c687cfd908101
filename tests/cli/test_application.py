"""The command `radtransfer` itself."""

from click.testing import CliRunner

from radtransfer.cli.main import application


def test_a_mistyped_command_is_usage_and_names_the_closest():
    outcome = CliRunner().invoke(application, ["finetun", "quickstart"])
    assert outcome.exit_code == 2
    assert "No command 'finetun'. Did you mean 'finetune'?" in outcome.stderr
