"""How similar two layers are: measures that need only sums over rows, so that rows can be streamed.

Arrays in memory: `cca(x, y)`, `svcca`, `pwcca`, `cka`, `procrustes`, `linear_regression`, `rbf_cka`
and `rsa`, with x and y of shape (rows, channels). Batch after batch, for every layer of two networks:
fill a `StreamedSums` and apply the measures of `SIMILARITIES` to its pairs.

To add a measure, write `radtransfer/similarity/<name>.py` with a `Measure` and name it here. Files are
not called like the functions in them: importing `similarity/cca.py` would replace the function
`similarity.cca` by the module.
"""

import importlib

from radtransfer.registry import Table

SIMILARITIES = Table(
    "similarity",
    {
        "cca": "radtransfer.similarity.canonical_correlation:CCA",
        "cca_squared": "radtransfer.similarity.canonical_correlation:CCA_SQUARED",
        "svcca": "radtransfer.similarity.singular_vector:SVCCA",
        "svcca_singular_values": "radtransfer.similarity.singular_vector:SVCCA_SINGULAR_VALUES",
        "pwcca": "radtransfer.similarity.projection_weighted:PWCCA",
        "pwcca_google": "radtransfer.similarity.projection_weighted:PWCCA_GOOGLE",
        "cka": "radtransfer.similarity.kernel_alignment:CKA",
        "cka_biased": "radtransfer.similarity.kernel_alignment:CKA_BIASED",
        "procrustes": "radtransfer.similarity.rotation:PROCRUSTES",
        "linear_regression": "radtransfer.similarity.explained_variance:LINEAR_REGRESSION",
        "rbf_cka": "radtransfer.similarity.radial_alignment:RBF_CKA",
        "rsa": "radtransfer.similarity.dissimilarity_matrices:RSA",
    },
)
"""Name to `Measure`; NumPy is imported when a measure is asked for."""

_PUBLIC = {
    "Similarity": "radtransfer.similarity.measure",
    "StreamedSums": "radtransfer.similarity.streamed_sums",
    "cca": "radtransfer.similarity.canonical_correlation",
    "chance_cca": "radtransfer.similarity.chance",
    "cka": "radtransfer.similarity.kernel_alignment",
    "jackknife_interval": "radtransfer.similarity.jackknife",
    "linear_regression": "radtransfer.similarity.explained_variance",
    "procrustes": "radtransfer.similarity.rotation",
    "pwcca": "radtransfer.similarity.projection_weighted",
    "rbf_cka": "radtransfer.similarity.radial_alignment",
    "rsa": "radtransfer.similarity.dissimilarity_matrices",
    "svcca": "radtransfer.similarity.singular_vector",
}

__all__ = ["SIMILARITIES", *_PUBLIC]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'radtransfer.similarity' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
