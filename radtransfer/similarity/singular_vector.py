"""Singular vector canonical correlation (SVCCA): CCA of the leading principal components."""

from functools import partial

import numpy as np

from radtransfer.errors import SimilarityError
from radtransfer.similarity.chance import chance_cca
from radtransfer.similarity.checks import check_choice, check_compat
from radtransfer.similarity.google_compat import google_cca
from radtransfer.similarity.layer_sums import LayerSums
from radtransfer.similarity.measure import Measure, Similarity, check_rows, similarity_of
from radtransfer.similarity.pair_sums import PairSums
from radtransfer.similarity.rows import sums_of_rows

_POWERS = {"variance": 1.0, "singular_values": 0.5}


def svcca(
    x: np.ndarray,
    y: np.ndarray,
    *,
    rule: str = "variance",
    threshold: float = 0.99,
    compat: str | None = None,
    epsilon: float | None = None,
    allow_few_rows: bool = False,
) -> Similarity:
    """The mean canonical correlation of the principal components that make up 99 % of each layer.

    Args:
        x: Real (rows, channels).
        y: The same rows of another layer, real (rows, channels); the numbers of channels may differ.
        rule: What must add up to `threshold`: `"variance"`, the squared singular values, as the paper says,
            or `"singular_values"` themselves, as other code does; the latter keeps more.
        threshold: Share to keep, above 0, up to 1.
        compat: As in `cca`, applied to the components.
        epsilon: As in `cca`.
        allow_few_rows: Accept fewer than two rows per component.

    Raises:
        SimilarityError: As in `cca`.

    References:
        Raghu, Gilmer, Yosinski and Sohl-Dickstein 2017, SVCCA, section 2.1.
    """
    check_compat(compat, epsilon)
    pair = sums_of_rows(x, y)
    result = svcca_of_sums(pair, rule=rule, threshold=threshold, compat=compat, epsilon=epsilon)
    if not compat and not allow_few_rows:
        check_rows(result, pair)
    return result


def svcca_of_sums(
    pair: PairSums,
    *,
    rule: str = "variance",
    threshold: float = 0.99,
    compat: str | None = None,
    epsilon: float | None = None,
) -> Similarity:
    """The same from sums, with the same options."""
    check_choice("rule", rule, _POWERS)
    if not 0 < threshold <= 1:
        raise SimilarityError(f"Expected a threshold above 0 and up to 1, received {threshold:g}.")
    lengths_x, axes_x = _components(pair.x, _POWERS[rule], threshold)
    lengths_y, axes_y = _components(pair.y, _POWERS[rule], threshold)
    between = pair.between(axes_x, axes_y)
    if compat:
        coefficients = google_cca(np.diag(lengths_x), between, np.diag(lengths_y), epsilon or 0.0).coefficients
    else:
        whitened = between / np.sqrt(np.outer(lengths_x, lengths_y))
        coefficients = np.clip(np.linalg.svd(whitened, compute_uv=False), 0, 1)
    return similarity_of(pair, coefficients.mean(), coefficients, ranks=(lengths_x.size, lengths_y.size))


def _components(layer: LayerSums, power: float, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Squared singular values and axes of the fewest components that reach the threshold."""
    values, axes = layer.principal
    shares = np.cumsum(values**power)
    count = 1 + np.searchsorted(shares[:-1], threshold * shares[-1])
    return values[:count], axes[:, :count]


_BY_SINGULAR_VALUES = {"rule": "singular_values"}
SVCCA = Measure("SVCCA, 99 % of the variance", svcca, svcca_of_sums, chance_cca)
SVCCA_SINGULAR_VALUES = Measure(
    "SVCCA, 99 % of the singular values",
    partial(svcca, **_BY_SINGULAR_VALUES),
    partial(svcca_of_sums, **_BY_SINGULAR_VALUES),
    chance_cca,
)
