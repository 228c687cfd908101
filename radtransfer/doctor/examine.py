"""All findings, cheapest first; whatever breaks is a finding itself."""

from collections.abc import Callable, Iterator

from radtransfer.doctor.finding import Finding
from radtransfer.doctor.gpu import gather, gpu_finding
from radtransfer.doctor.machine import arithmetic_finding, cache_finding, machine_finding
from radtransfer.doctor.software import PACKAGE, extras, extras_finding, requirements, versions_finding
from radtransfer.errors import OutOfMemoryError
from radtransfer.pretrained.weight_sources import SEARCH_VARIABLE, found_files, keras_cache, search_folders


def examine(*, import_tensorflow: Callable[[], None]) -> Iterator[Finding]:
    """Look at everything.

    Args:
        import_tensorflow: Imports TensorFlow; may raise anything.
    """
    yield _found("versions", lambda: versions_finding(requirements(PACKAGE)))
    yield _found("machine", machine_finding)
    yield _found("cache", cache_finding)
    yield _found("weights", weights_finding)
    yield _found("extras", lambda: extras_finding(extras()))
    try:
        import_tensorflow()
    except Exception as error:
        advice = "install it again: pip install --force-reinstall tensorflow"
        advice = "raise the limit that is named" if isinstance(error, OutOfMemoryError) else advice
        yield Finding("tensorflow", "problem", f"cannot be imported: {_first_line(error)}", advice)
        return
    yield _found("gpu", lambda: gpu_finding(gather()))
    yield _found("arithmetic", arithmetic_finding)


def weights_finding() -> Finding:
    """The known weight files that are here."""
    found = found_files()
    named, *_ = folders = search_folders()
    facts = {"folders": [str(folder) for folder in folders], "found": {name: str(path) for name, path in found.items()}}
    searched = ", ".join(str(folder.resolve()) for folder in folders)
    files = "\n".join(f"{name:<32}{path}" for name, path in found.items()) or "none of the known files"
    text = f"searched in {searched}; Keras' own in {keras_cache()}\n{files}"
    if len(folders) > 1 and not named.is_dir():
        return Finding("weights", "problem", f"{SEARCH_VARIABLE}={named} is no folder\n{text}", "correct it", facts)
    advice = "" if found else f"only where you need them; {SEARCH_VARIABLE} names the folder that holds yours"
    return Finding("weights", "ok" if found else "note", text, advice, facts)


def _found(subject: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except Exception as error:  # what the doctor cannot see is worth a line, and no reason to stop looking
        return Finding(subject, "problem", f"cannot be examined: {type(error).__name__}: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
