"""Files of the Hugging Face hub: `hf:OWNER/REPO/FILE[@REVISION]`, from its cache; downloaded only when told to.

Needs the extra `hub` (huggingface_hub), which is imported when such a name is given.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from radtransfer.errors import WeightsError, WeightsNotFoundError

HUB = "hf:"
"""What such a name begins with."""


@dataclass(frozen=True)
class HubFile:
    """One file of one repository.

    Attributes:
        given: What the user said.
        repo: OWNER/REPO.
        name: Path of the file in it.
        revision: Branch, tag or commit; None for the main one.
    """

    given: str
    repo: str
    name: str
    revision: str | None

    @property
    def fetch_line(self) -> str:
        return f"radtransfer weights fetch {self.given} --download"


def hub_file(given: str) -> HubFile:
    """What `given` names.

    Raises:
        WeightsError: It is not of the form hf:OWNER/REPO/FILE[@REVISION].
    """
    part = r"[\w.-]+"
    found = re.fullmatch(rf"hf:({part}/{part})/((?:{part}/)*{part})(?:@([\w./-]+))?", given)
    if found is None or ".." in given:
        raise WeightsError(f"expected hf:OWNER/REPO/FILE, or hf:OWNER/REPO/FILE@REVISION. Received: {given}.")
    return HubFile(given, *found.groups())


def cached_hub_file(given: str) -> Path:
    """Where `given` lies on this machine.

    Raises:
        WeightsNotFoundError: It was not downloaded; says the command that does.
        WeightsError: Not a name of this form, or huggingface_hub is not installed.
    """
    wanted = hub_file(given)
    path = _in_cache(wanted, _hub())
    if path is None:
        raise WeightsNotFoundError(
            f"{given} is not in the hub's cache, and nothing is downloaded unasked. Run: {wanted.fetch_line}"
        )
    return path


def size_of(wanted: HubFile) -> int | None:
    """Bytes, as the hub says; None where it does not.

    Raises:
        WeightsError: The hub cannot be reached, or has no such file.
    """
    hub = _hub()
    try:
        url = hub.hf_hub_url(wanted.repo, wanted.name, revision=wanted.revision)
        return hub.get_hf_file_metadata(url).size
    except Exception as error:  # the hub's errors derive from those of whichever HTTP library it uses
        raise WeightsError(_unreachable(wanted, error)) from None


def download(wanted: HubFile) -> Path:
    """Where the file lies after it was downloaded to the hub's cache.

    Raises:
        WeightsError: The hub cannot be reached, has no such file, or wants a login.
    """
    hub = _hub()
    try:
        return Path(hub.hf_hub_download(wanted.repo, wanted.name, revision=wanted.revision))
    except Exception as error:  # as above
        raise WeightsError(_unreachable(wanted, error)) from None


def in_cache(wanted: HubFile) -> Path | None:
    """Where the file lies if it was downloaded before."""
    return _in_cache(wanted, _hub())


def _in_cache(wanted: HubFile, hub: ModuleType) -> Path | None:
    found = hub.try_to_load_from_cache(wanted.repo, wanted.name, revision=wanted.revision)
    return Path(found) if isinstance(found, str) else None


def _hub() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError:
        raise WeightsError("hf: needs huggingface_hub. Install it: pip install 'radtransfer[hub]'.") from None
    return huggingface_hub


def _unreachable(wanted: HubFile, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return (
        f"could not get {wanted.name} of {wanted.repo} ({reason}). On a machine with network download the file "
        "and pass its path."
    )
