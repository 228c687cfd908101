"""The measures computed another way: from rows, by SVD, QR, least squares or rows-by-rows kernels."""

import numpy as np


def orthonormal(rows, smallest=1e-9):
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    spread = np.linalg.norm(centred, axis=0)
    live = spread > 1e-12 * np.linalg.norm(rows.astype(np.float64), axis=0)
    left, values, _ = np.linalg.svd(centred[:, live] / spread[live], full_matrices=False)
    return left[:, values > smallest * values[0]]


def coefficients(x, y):
    return np.linalg.svd(orthonormal(x).T @ orthonormal(y), compute_uv=False)


def leading(rows, power):
    centred = rows - rows.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    shares = np.cumsum(values**power) / np.sum(values**power)
    return left[:, : int(np.argmax(shares >= 0.99)) + 1]


def projection_weighted(x, y):
    x = x - x.mean(axis=0)
    basis, other = np.linalg.qr(x)[0], np.linalg.qr(y - y.mean(axis=0))[0]
    left, values, _ = np.linalg.svd(basis.T @ other, full_matrices=False)
    weights = np.abs((basis @ left).T @ x).sum(axis=1)
    return weights @ values / weights.sum()


def kernel_alignment(kernel_x, kernel_y, debiased):
    """Song et al. 2012, equation 5, and Kornblith et al. 2019, equation 3, on kernels (rows, rows)."""

    def dependence(k, kernel):
        n = len(k)
        if not debiased:
            centring = np.eye(n) - 1 / n
            return np.sum((k @ centring) * (centring @ kernel))
        k, kernel = k - np.diag(np.diag(k)), kernel - np.diag(np.diag(kernel))
        ones = np.ones(n)
        sums = (ones @ k @ ones) * (ones @ kernel @ ones) / ((n - 1) * (n - 2))
        return np.sum(k * kernel) + sums - 2 / (n - 2) * (ones @ k) @ (kernel @ ones)

    own = dependence(kernel_x, kernel_x) * dependence(kernel_y, kernel_y)
    return dependence(kernel_x, kernel_y) / np.sqrt(own)


def best_rotation(x, y):
    """The cosine after the rotation that fits best, x and y having the same number of channels."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    left, _, right = np.linalg.svd(x.T @ y)
    return np.sum((x @ left @ right) * y) / np.linalg.norm(x) / np.linalg.norm(y)


def explained(x, y):
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    residual = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return 1 - np.sum(residual**2) / np.sum(y**2)


def svcca_package(x, y, epsilon):
    """Coefficients by the steps of google/svcca as its papers' appendix and documentation describe them."""
    both = np.cov(np.hstack([x, y]).T)
    d = x.shape[1]
    roots, kept = [], []
    for block in (both[:d, :d], both[d:, d:]):
        scaled = block / np.abs(block).max()
        keep = np.diag(scaled) >= epsilon
        ridged = scaled[np.ix_(keep, keep)] + epsilon * np.eye(keep.sum())
        values, vectors = np.linalg.eigh(np.linalg.pinv(ridged))
        roots.append(vectors @ np.diag(np.sqrt(values)) @ vectors.T)
        kept.append(keep)
    cross = both[:d, d:] / np.sqrt(np.abs(both[:d, :d]).max() * np.abs(both[d:, d:]).max())
    return np.linalg.svd(roots[0] @ cross[np.ix_(*kept)] @ roots[1], compute_uv=False)
