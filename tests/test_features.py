import errno
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from radtransfer.errors import DiskError
from radtransfer.images.formats import inspect_image
from radtransfer.images.pipeline import make_batches
from radtransfer.models.backbone import BACKBONES
from radtransfer.models.classifier import build_classifier, cut_network
from radtransfer.transfer import frozen as features
from radtransfer.transfer.frozen import UncachedFeatures, cached_features
from radtransfer.transfer.initialize import initialize_weights

IMAGES, SIZE, BATCH = 10, 24, 4


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Batches of ten images, and their targets; features go to an empty cache."""
    monkeypatch.setenv("RADTRANSFER_CACHE", str(tmp_path / "cache"))
    rng, files = np.random.default_rng(0), []
    for i in range(IMAGES):
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)).save(files[-1])
    targets = np.eye(IMAGES, dtype=np.float32)
    return SimpleNamespace(files=files, targets=targets, batches=make(files, targets))


def make(files, targets):
    facts = [inspect_image(file) for file in files]
    names = [file.name for file in files]
    return make_batches(names, files, facts, targets, image_size=SIZE, batch_size=BATCH, workers=2)


def cut(seed=1, through=("conv1", "bn1")):
    classifier = build_classifier(
        BACKBONES["cbr_tiny"], classes=2, image_size=SIZE, activation="softmax", dropout=0.5, preprocessing="caffe"
    )
    initialize_weights(classifier.model, None, None, seed=seed)
    return cut_network(classifier, frozenset(through))


def once(images, which, heard=None):
    steps = [] if heard is None else heard
    return cached_features(
        which, images.batches, images.targets, batch_size=BATCH, count=lambda done, total: steps.append((done, total))
    )


def entries(tmp_path):
    return sorted(item.name for item in (tmp_path / "cache" / "features").iterdir())


def test_each_image_has_the_features_that_the_trunk_gives_it(images):
    which = cut()
    found = once(images, which)
    for (inputs, targets, weights), (pixels, expected, filled) in zip(
        found.shuffled(3, rows=np.arange(IMAGES), seed=1, fold=2),
        images.batches.shuffled(3, rows=np.arange(IMAGES), seed=1, fold=2),
        strict=True,
    ):
        np.testing.assert_allclose(inputs[0], which.features(pixels)[0], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(targets, expected)
        np.testing.assert_array_equal(weights, filled)


def test_the_same_trunk_is_computed_once_even_after_other_networks_were_built(images, tmp_path):
    first, second = [], []
    once(images, cut(), first)
    cut(seed=9)
    once(images, cut(), second)
    assert first == [(1, 3), (2, 3), (3, 3)]
    assert second == []
    assert len(entries(tmp_path)) == 1


def test_other_weights_another_depth_other_arithmetic_or_changed_images_are_computed_anew(
    images, tmp_path, monkeypatch
):
    once(images, cut())
    with monkeypatch.context() as patch:
        patch.setattr(features, "onednn_in_use", lambda: "otherwise")
        once(images, cut())
    once(images, cut(seed=2))
    once(images, cut(through=("conv1", "bn1", "conv2", "bn2")))
    Image.new("RGB", (SIZE, SIZE)).save(images.files[0])
    os.utime(images.files[0], (1, 1))
    once(images, cut())
    assert len(entries(tmp_path)) == 5


def test_the_least_recently_used_features_make_room(images, tmp_path, monkeypatch):
    once(images, cut(seed=1))
    (old,) = entries(tmp_path)
    os.utime(tmp_path / "cache" / "features" / old, (1, 1))
    size = (tmp_path / "cache" / "features" / old / "0.npy").stat().st_size
    monkeypatch.setattr(features, "FEATURES", replace(features.FEATURES, limit=2.5 * size))
    once(images, cut(seed=2))
    once(images, cut(seed=3))
    assert old not in entries(tmp_path)
    assert len(entries(tmp_path)) == 2


def test_what_another_process_is_computing_stays_and_what_a_killed_one_left_goes(images, tmp_path, monkeypatch):
    folder = tmp_path / "cache" / "features"
    for name in (".part-running", ".part-killed"):
        (folder / name).mkdir(parents=True)
        (folder / name / "0.npy").write_bytes(b"features")
    os.utime(folder / ".part-killed", (1, 1))
    monkeypatch.setattr(features, "FEATURES", replace(features.FEATURES, limit=1))
    once(images, cut())
    assert ".part-running" in entries(tmp_path)
    assert ".part-killed" not in entries(tmp_path)


def test_a_full_disk_is_said_before_anything_is_computed(images, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(DiskError, match=r"need [\d.]+ kB in .*, which has 10 bytes free.*--no-cache-features"):
        once(images, cut())
    assert entries(tmp_path) == []


def test_a_cache_that_cannot_be_written_is_named(images, tmp_path, monkeypatch):
    monkeypatch.setenv("RADTRANSFER_CACHE", str(images.files[0]))
    with pytest.raises(DiskError, match=r"cannot be cached in .*RADTRANSFER_CACHE"):
        once(images, cut())


def test_a_broken_computation_leaves_nothing(images, tmp_path):
    images.files[5].write_bytes(b"not an image")
    with pytest.raises(Exception, match=r"5\.png"):
        once(images, cut())
    assert entries(tmp_path) == []


def test_features_that_are_not_kept_are_the_same_bit_by_bit(images):
    which = cut()
    kept, computed = once(images, which), UncachedFeatures(which, images.batches)
    for mine, its in zip(
        computed.shuffled(3, rows=np.arange(IMAGES), seed=1, fold=2),
        kept.shuffled(3, rows=np.arange(IMAGES), seed=1, fold=2),
        strict=True,
    ):
        for a, b in zip((*mine[0], *mine[1:]), (*its[0], *its[1:]), strict=True):
            np.testing.assert_array_equal(a, b)
    assert len(list(computed.in_order(np.arange(3)))) == 1


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="space is not allocated there")
def test_a_file_without_its_space_is_never_mapped(images, tmp_path):
    """A page of a mapped file that has no place on the disk ends the process with SIGBUS."""
    code = (
        "import pathlib, resource, signal, sys\nimport numpy as np\n"
        "from radtransfer.errors import DiskError\nfrom radtransfer.runs.cache import ArrayCache\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "def fill(arrays):\n    print('mapped')\n    arrays[0][:] = 1\n"
        "try:\n    ArrayCache('x', 10**9, 'The arrays', '--none').get('k', [(200, 1000)], dtype=np.uint8, fill=fill)\n"
        "except DiskError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The arrays cannot be cached in") and "File too large" in done.stdout
    assert list((tmp_path / "cache" / "x").iterdir()) == []


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSPC])
def test_a_file_system_that_allocates_nothing_gets_zeros(images, tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    if number == errno.ENOSPC:
        with pytest.raises(DiskError, match="No space left"):
            once(images, cut())
        assert entries(tmp_path) == []
        return
    once(images, cut())
    (file,) = (tmp_path / "cache" / "features").glob("*/0.npy")
    assert file.stat().st_blocks * 512 >= file.stat().st_size


def test_older_features_make_room_on_a_full_disk(images, tmp_path, monkeypatch):
    once(images, cut(seed=1))
    (old,) = entries(tmp_path)
    size = (tmp_path / "cache" / "features" / old / "0.npy").stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=size // 2))
    once(images, cut(seed=2))
    assert len(entries(tmp_path)) == 1 and old not in entries(tmp_path)
