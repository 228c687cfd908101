"""Versions of what radtransfer needs, and which of its extras are installed."""

import importlib.metadata as metadata
import platform
from collections.abc import Sequence
from dataclasses import dataclass

from packaging.requirements import Requirement

from radtransfer import __version__
from radtransfer.doctor.finding import Finding

PACKAGE = "radtransfer"


@dataclass(frozen=True)
class Needed:
    """A package that is required.

    Attributes:
        name: Of the package.
        wanted: Versions that will do.
        installed: The version that is here; None if none is.
        fits: Whether it will do.
    """

    name: str
    wanted: str
    installed: str | None
    fits: bool


def requirements(package: str, *, extra: str | None = None) -> list[Needed]:
    """What `package` requires, always or for `extra`, and what is here of it."""
    found = []
    for line in metadata.requires(package) or ():
        need = Requirement(line)
        always = need.marker is None or need.marker.evaluate({"extra": ""})
        if always == (extra is None) and (always or need.marker.evaluate({"extra": extra})):
            installed = installed_version(need.name)
            fits = installed is not None and need.specifier.contains(installed, prereleases=True)
            found.append(Needed(need.name, str(need.specifier), installed, fits))
    return found


def installed_version(name: str) -> str | None:
    """The version of a distribution; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def versions_finding(needed: Sequence[Needed]) -> Finding:
    """Whether every package is here in a version that will do."""
    wrong = [item for item in needed if not item.fits]
    here = ", ".join(f"{item.name} {item.installed}" for item in needed if item.fits)
    lines = [f"radtransfer {__version__}, Python {platform.python_version()}, {platform.platform()}", here]
    lines += [f"{item.name} {item.installed or 'is not installed'}; needed: {item.wanted}" for item in wrong]
    advice = "pip install " + " ".join(f"'{item.name}{item.wanted}'" for item in wrong) if wrong else ""
    facts = {"radtransfer": __version__, "python": platform.python_version(), "platform": platform.platform()}
    facts |= {item.name: item.installed for item in needed}
    return Finding("versions", "problem" if wrong else "ok", "\n".join(lines), advice, facts)


def extras() -> dict[str, list[Needed]]:
    """What each extra of this package requires; the one for tests is not shown."""
    names = metadata.distribution(PACKAGE).metadata.get_all("Provides-Extra") or ()
    return {name: requirements(PACKAGE, extra=name) for name in names if name != "test"}


def extras_finding(needed: dict[str, list[Needed]]) -> Finding:
    """Which extras are complete, and what the others lack."""
    lines, lacking = [], []
    for name, packages in needed.items():
        missing = [item.name for item in packages if not item.fits]
        lines.append(f"{name:<8}{'installed' if not missing else 'lacks ' + ', '.join(missing)}")
        lacking += [name] if missing else []
    advice = f"pip install '{PACKAGE}[{','.join(lacking)}]', those that you need" if lacking else ""
    facts = {name: all(item.fits for item in packages) for name, packages in needed.items()}
    return Finding("extras", "note" if lacking else "ok", "\n".join(lines), advice, facts)
