"""How much faster than google/svcca: one pair of layers, and all pairs of two networks of 53 layers.

    python tests/benchmarks/bench_similarity.py [--svcca-path CHECKOUT] [--rounds 9] [--json FILE]

Without a checkout of https://github.com/google/svcca, a plain NumPy restatement of its steps stands in for
it. The contestants take turns, so that whatever else the machine does meets all of them; each ratio is the
median of the ratios within rounds. Times are CPU seconds; with `OPENBLAS_NUM_THREADS=1`, CPU time is work
done and not threads that wait for each other.
"""

import argparse
import json
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np

from radtransfer import similarity
from radtransfer.similarity import SIMILARITIES, StreamedSums

EPSILON = 1e-10
LAYERS, ROWS, CHANNELS = 53, 10_000, 64
SAMPLED_PAIRS = 30


def restated(x, y):
    """The steps of `get_cca_similarity`: covariance, scaling, pruning, ridge, whitening, singular vectors."""
    d = len(x)
    covariance = np.cov(x, y)
    xx, xy, yy = covariance[:d, :d], covariance[:d, d:], covariance[d:, d:]
    size_x, size_y = np.abs(xx).max(), np.abs(yy).max()
    xx, yy, xy = xx / size_x, yy / size_y, xy / np.sqrt(size_x * size_y)
    roots = []
    for block in (xx, yy):
        kept = np.abs(np.diag(block)) >= EPSILON
        ridged = block[kept][:, kept] + EPSILON * np.eye(kept.sum())
        values, vectors = np.linalg.eigh(np.linalg.pinv(ridged))
        roots.append(vectors @ np.diag(np.sqrt(values)) @ vectors.T)
    return np.linalg.svd(roots[0] @ xy @ roots[1])[1]


def load_package(path):
    """The coefficients of google/svcca itself, from a checkout, or of its restatement."""
    if path is None:
        return restated
    sys.path.insert(0, str(path))
    import cca_core

    return lambda x, y: cca_core.get_cca_similarity(x, y, epsilon=EPSILON, verbose=False)["cca_coef1"]


def streamed(x, y, precision):
    sums = StreamedSums(pairs="same", precision=precision, norms=False)
    sums.add({"x": x}, {"y": y})
    return SIMILARITIES["cca"].of_sums(sums.pair("x", "y")).coefficients


def timed(function):
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def one_pair(package, rows, channels, rounds):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(rows, channels))
    x, y = (np.maximum(inputs @ rng.normal(size=(channels, channels)), 0) for _ in "xy")
    neurons_x, neurons_y = np.ascontiguousarray(x.T), np.ascontiguousarray(y.T)
    contestants = {
        "google": lambda: package(neurons_x, neurons_y),
        "cca": lambda: similarity.cca(x, y).coefficients,
        "float32": lambda: streamed(x, y, "float32"),
    }
    seconds = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, function in contestants.items():
            seconds[name].append(timed(function)[0])
    results = {name: function() for name, function in contestants.items()}
    return {
        "rows": rows,
        "channels": channels,
        "seconds": {name: float(np.median(values)) for name, values in seconds.items()},
        "ratio": {name: ratio(seconds["google"], seconds[name]) for name in ("cca", "float32")},
        "difference": {name: float(np.abs(results[name] - results["google"]).max()) for name in ("cca", "float32")},
    }


def ratio(theirs, ours):
    return float(np.median(np.array(theirs) / np.array(ours)))


def all_pairs(package, precision, rounds):
    rng = np.random.default_rng(0)
    networks = [
        {f"layer{i}": rng.normal(size=(ROWS, CHANNELS)).astype(np.float32) for i in range(LAYERS)} for _ in "xy"
    ]
    sampled = [(f"layer{i}", f"layer{j}") for i, j in rng.integers(LAYERS, size=(SAMPLED_PAIRS, 2))]
    pair_by_pair, one_pass = [], []
    for _ in range(rounds):
        seconds, _ = timed(lambda: [package(networks[0][a].T, networks[1][b].T) for a, b in sampled])
        pair_by_pair.append(seconds / SAMPLED_PAIRS * LAYERS**2)
        seconds, state = timed(lambda: every_value(*networks, precision))
        one_pass.append(seconds)
    return {
        "precision": precision,
        "seconds": {
            "google, from a sample of pairs": float(np.median(pair_by_pair)),
            "one pass": float(np.median(one_pass)),
        },
        "ratio": ratio(pair_by_pair, one_pass),
        "state_mib": state / 2**20,
        "peak_mib": peak(networks, precision),
    }


def every_value(x, y, precision):
    sums = StreamedSums(precision=precision, norms=False)
    sums.add(x, y)
    for names in sums.names():
        SIMILARITIES["cca"].of_sums(sums.pair(*names))
    return sums.nbytes


def peak(networks, precision):
    """Peak MiB of the sums and all they need, less the activations themselves."""
    tracemalloc.start()
    StreamedSums(precision=precision).add(*networks)
    size = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return size / 2**20


def memory_of_rows():
    """Peak MiB of streaming 10 thousand and 1 million rows of a pair of 64 channels."""
    batch = {"a": np.random.default_rng(0).normal(size=(10_000, CHANNELS))}
    sizes = {}
    for batches in (1, 100):
        tracemalloc.start()
        sums = StreamedSums(pairs="same")
        for _ in range(batches):
            sums.add(batch, batch)
        sizes[10_000 * batches] = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
    return sizes


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--svcca-path", type=Path, help="a checkout of google/svcca; otherwise its steps, restated")
    parser.add_argument("--rounds", type=int, default=9, help="of the small pair; the others take a third of them")
    parser.add_argument("--json", type=Path, help="also write the results here")
    options = parser.parse_args()
    package, few = load_package(options.svcca_path), max(3, options.rounds // 3)
    report = {
        "against": "google/svcca" if options.svcca_path else "restatement of google/svcca",
        "one_pair": [one_pair(package, 10_000, 64, options.rounds), one_pair(package, 50_000, 256, few)],
        "all_pairs": [all_pairs(package, precision, few) for precision in ("float32", "float64")],
        "peak_mib_by_rows": memory_of_rows(),
    }
    text = json.dumps(report, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
