"""Around every use of pydicom: silence, and a `BadImageError` for whatever it and its plugins raise."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec

from radtransfer.errors import BadImageError
from radtransfer.image_place import ImagePlace

INSTALL = "pip install 'radtransfer[dicom]'"

_LIBRARIES = ("pydicom", "pylibjpeg", "openjpeg")


@contextmanager
def reading(place: ImagePlace) -> Iterator[None]:
    """Work on `place`, its header's elements included: in silence, and every error a `BadImageError`."""
    if not find_spec("pydicom"):
        raise BadImageError(place, f"a DICOM file, which pydicom reads; install it: {INSTALL}")
    try:
        with _SILENCE:
            yield
    except BadImageError:
        raise
    except FileNotFoundError:
        raise BadImageError(place, "not found") from None
    except PermissionError as error:
        raise BadImageError(place, f"cannot be opened ({error.strerror})") from None
    # pydicom raises what it meets in a damaged file: KeyError, struct.error, AssertionError and more.
    except Exception as error:
        raise BadImageError(place, f"damaged ({reason_of(error)})") from error


def reason_of(error: Exception) -> str:
    """The first line of the message, or the second of those that only announce reasons with the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable(lines[min(1, len(lines) - 1)].rstrip(".:") if lines else type(error).__name__)


def printable(text: str) -> str:
    """`text` from a header, fit for one line of a report: a damaged one may hold any character."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


class _Silence:
    """While any thread is inside, what pydicom and its plugins warn of or log goes nowhere.

    One for all threads: the list of warning filters is the process', and threads that each set and restore it
    would leave it changed.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._outer = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside > 1:
                return
            self._outer.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module="|".join(_LIBRARIES))
            for logger in map(logging.getLogger, _LIBRARIES):
                self._outer.callback(setattr, logger, "propagate", logger.propagate)
                logger.propagate = False

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._outer.close()


_SILENCE = _Silence()
