"""What is wrong with arguments, said before anything is computed."""

from collections.abc import Iterable, Mapping

import numpy as np

from radtransfer.errors import SimilarityError, UnknownNameError


def check_choice(what: str, value: str, known: Iterable[str]) -> None:
    """See that an option has one of its values.

    Raises:
        UnknownNameError: It has not.
    """
    if value not in known:
        raise UnknownNameError(what, value, known)


def check_array(name: str, values: np.ndarray) -> np.ndarray:
    """Activations as a real array (rows, channels).

    Raises:
        SimilarityError: Another shape or kind of number.
    """
    array = np.asarray(values)
    if array.ndim != 2 or 0 in array.shape:
        raise SimilarityError(
            f"{name}: expected activations of shape (rows, channels), received {array.shape}. "
            "Make each position of a feature map a row: `maps.reshape(-1, maps.shape[-1])`."
        )
    if array.dtype.kind not in "fiub":
        raise SimilarityError(f"{name}: expected real numbers, received {array.dtype}.")
    # Half precision cannot hold a sum, and integers and booleans cannot be shifted.
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def check_layers(
    x: Mapping[str, np.ndarray], y: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], int]:
    """The batches as arrays, and the number of rows they share.

    Raises:
        SimilarityError: No layer, a wrong shape, or different numbers of rows.
    """
    x = {name: check_array(name, batch) for name, batch in x.items()}
    y = {name: check_array(name, batch) for name, batch in y.items()}
    if not x or not y:
        raise SimilarityError("Expected at least one layer of x and one of y, received none.")
    first = next(iter(x))
    for name, batch in (*x.items(), *y.items()):
        if len(batch) != len(x[first]):
            raise SimilarityError(
                f"{name}: expected the same rows as {first} ({len(x[first])}), received {len(batch)}. "
                "Row i of every layer must come from the same image and position."
            )
    return x, y, len(x[first])


def check_compat(compat: str | None, epsilon: float | None) -> None:
    """See that `epsilon` is given only where it means something, and is not negative.

    Raises:
        UnknownNameError: No such `compat`.
        SimilarityError: An epsilon that cannot be used.
    """
    if compat is not None:
        check_choice("compat", compat, ("google",))
    if epsilon is None:
        return
    if compat is None:
        raise SimilarityError(f"Received epsilon={epsilon:g} without compat='google'; the exact measures have none.")
    if not epsilon >= 0:
        raise SimilarityError(f"Expected epsilon of 0 or more, received {epsilon:g}.")


def check_finite(name: str, sums: np.ndarray) -> None:
    """See that the sums over rows, (channels,), of a layer are finite.

    Raises:
        SimilarityError: They are not; names the layer and its channels.
    """
    bad = np.flatnonzero(~np.isfinite(sums))
    if bad.size:
        listed = ", ".join(map(str, bad[:5].tolist())) + (", …" if bad.size > 5 else "")
        raise SimilarityError(
            f"{name}: expected finite activations, received NaN or infinity in {bad.size} of {sums.size} "
            f"channels ({listed}). Check that training did not diverge and that no image holds NaN."
        )
