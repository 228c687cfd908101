"""Similarity of layers, also computed from streamed sums over rows.

For arrays in memory: `cca(x, y)`, `svcca`, `pwcca`, `cka`, `procrustes`, `linear_regression`, `rbf_cka` and `rsa`, with
x and y of shape (rows, channels). For many layers in batches: fill a `StreamedSums` and apply the measures of
`SIMILARITIES` to its pairs.

To add a measure, write a `Measure` in a module of this package and add it to the table. No module may have the name of
a public function, which it would replace.
"""

import importlib

from radtransfer.errors import Table

SIMILARITIES = Table(
    "similarity",
    {
        "cca": "radtransfer.similarity.correlation:CCA",
        "cca_squared": "radtransfer.similarity.correlation:CCA_SQUARED",
        "svcca": "radtransfer.similarity.correlation:SVCCA",
        "svcca_singular_values": "radtransfer.similarity.correlation:SVCCA_SINGULAR_VALUES",
        "pwcca": "radtransfer.similarity.correlation:PWCCA",
        "pwcca_google": "radtransfer.similarity.correlation:PWCCA_GOOGLE",
        "cka": "radtransfer.similarity.others:CKA",
        "cka_biased": "radtransfer.similarity.others:CKA_BIASED",
        "procrustes": "radtransfer.similarity.others:PROCRUSTES",
        "linear_regression": "radtransfer.similarity.others:LINEAR_REGRESSION",
        "rbf_cka": "radtransfer.similarity.others:RBF_CKA",
        "rsa": "radtransfer.similarity.others:RSA",
    },
)
"""Name to `Measure`; NumPy is imported with the first measure."""

_PUBLIC = {
    "Similarity": "radtransfer.similarity.measure",
    "StreamedSums": "radtransfer.similarity.moments",
    "cca": "radtransfer.similarity.correlation",
    "chance_cca": "radtransfer.similarity.measure",
    "cka": "radtransfer.similarity.others",
    "jackknife_interval": "radtransfer.similarity.measure",
    "linear_regression": "radtransfer.similarity.others",
    "procrustes": "radtransfer.similarity.others",
    "pwcca": "radtransfer.similarity.correlation",
    "rbf_cka": "radtransfer.similarity.others",
    "rsa": "radtransfer.similarity.others",
    "svcca": "radtransfer.similarity.correlation",
}

__all__ = ["SIMILARITIES", *_PUBLIC]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'radtransfer.similarity' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
