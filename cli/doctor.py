"""`radtransfer doctor`: what this machine offers, and what stands in the way."""

from collections.abc import Iterator

import click

from radtransfer.cli.tensorflow import import_tensorflow
from radtransfer.cli.terminal import line, painted, show, show_json

_COLORS = {"ok": "green", "note": "yellow", "problem": "red"}

BROKEN = 2
"""Exit code where something is found that nothing works with."""


@click.command(short_help="Look at versions, memory, cache, weights and GPU.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Look at versions, memory, cache, weights, extras and GPU, and say what to do where something is amiss.

    The exit code is 2 if there is a problem that must be solved first, else 0: having no GPU or no extras is none.

    \b
    Example: radtransfer doctor
             radtransfer doctor --json > machine.json
    """
    from radtransfer.doctor.examine import examine

    findings = []
    for finding in examine(import_tensorflow=import_tensorflow):
        findings.append(finding)
        if not as_json:
            show(*_lines(finding))
    problems = [finding.subject for finding in findings if finding.status == "problem"]
    if as_json:
        show_json({"problems": problems, "findings": [item.to_dict() for item in findings]})
    elif problems:
        show(f"{len(problems)} to solve first: {', '.join(problems)}")
    click.get_current_context().exit(BROKEN if problems else 0)


def _lines(finding) -> Iterator[str]:
    first, *more = finding.text.split("\n")
    yield line(painted(f"{finding.status:<9}", fg=_COLORS[finding.status]), f"{finding.subject:<12}{first}")
    more += [f"→ {finding.advice}"] if finding.advice else []
    yield from (f"{'':<21}{text}" for text in more)
