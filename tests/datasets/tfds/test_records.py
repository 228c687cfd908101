"""TFRecord files are read by position as TensorFlow reads them, and damage is named."""

import numpy as np
import pytest
import tensorflow as tf

from radtransfer.data.tfrecords import Span, masked_crc32c, parse_example, read_examples, record_spans
from radtransfer.errors import DataError


def feature(value):
    if isinstance(value[0], bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=value))
    if isinstance(value[0], float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=value))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=value))


def serialized(**values):
    features = {name: feature(value) for name, value in values.items()}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write(file, records, options=None):
    with tf.io.TFRecordWriter(str(file), options) as writer:
        for record in records:
            writer.write(record)
    return file


def images(count):
    rng = np.random.default_rng(0)
    return [rng.bytes(int(rng.integers(1, 70_000))) for _ in range(count)]


def test_images_and_values_stand_where_tensorflow_wrote_them(tmp_path):
    contents = images(20)
    records = [
        serialized(image=[image], label=[number - 3], name=[f"ü{number}".encode()], many=[1, 300, -(2**40)], x=[0.5])
        for number, image in enumerate(contents)
    ]
    file = write(tmp_path / "a.tfrecord", records)
    found = list(read_examples(file, image="image"))
    stored = file.read_bytes()
    assert [stored[span.offset : span.offset + span.length] for span, _ in found] == contents
    assert [values["label"] for _, values in found] == [[number - 3] for number in range(20)]
    assert found[4][1] == {"label": [1], "name": ["ü4".encode()], "many": [1, 300, -(2**40)], "x": [0.5]}


def test_numbers_may_stand_unpacked():
    # Int64List of the values 5 and 6, each with its own key.
    numbers = b"\x08\x05\x08\x06"
    entry = b"\x0a\x01a\x12" + bytes([len(numbers) + 2]) + b"\x1a" + bytes([len(numbers)]) + numbers
    features = b"\x0a" + bytes([len(entry)]) + entry
    example = b"\x0a" + bytes([len(features)]) + features
    assert list(tf.train.Example.FromString(example).features.feature["a"].int64_list.value) == [5, 6]
    assert parse_example(example, Span(0, len(example))) == {"a": [5, 6]}


def test_the_checksum_is_that_of_tensorflow(tmp_path):
    stored = write(tmp_path / "a.tfrecord", [b"123456789"]).read_bytes()
    assert masked_crc32c(stored[:8]) == int.from_bytes(stored[8:12], "little")
    assert masked_crc32c(b"123456789") == int.from_bytes(stored[-4:], "little")


@pytest.mark.parametrize("cut", [1, 5, 40, 3000])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path, cut):
    file = write(tmp_path / "cut.tfrecord", [serialized(image=[bytes(3000)]) for _ in range(3)])
    file.write_bytes(file.read_bytes()[:-cut])
    with pytest.raises(DataError, match=r"cut\.tfrecord is truncated"):
        list(read_examples(file, image="image"))


def test_a_compressed_file_is_not_taken_for_one_of_records(tmp_path):
    file = write(tmp_path / "z.tfrecord", [serialized(image=[b"x"])], tf.io.TFRecordOptions("ZLIB"))
    with pytest.raises(DataError, match=r"z\.tfrecord is .*compressed"):
        list(read_examples(file, image="image"))


@pytest.mark.parametrize("contents", [b"no protocol buffer at all", b"\x0a\x7f", b"\x0b\x01\x01"])
def test_a_record_that_is_no_example_is_an_error(tmp_path, contents):
    file = write(tmp_path / "odd.tfrecord", [contents])
    with pytest.raises(DataError, match=r"odd\.tfrecord, record 0"):
        list(read_examples(file, image="image"))


def test_an_example_without_the_image_is_an_error(tmp_path):
    file = write(tmp_path / "a.tfrecord", [serialized(picture=[b"x"])])
    with pytest.raises(DataError, match="no image called 'image'"):
        list(read_examples(file, image="image"))


def test_an_empty_file_holds_nothing_and_a_missing_one_is_an_error(tmp_path):
    (tmp_path / "empty").touch()
    assert list(read_examples(tmp_path / "empty", image="image")) == []
    with pytest.raises(DataError, match="cannot be read"):
        list(read_examples(tmp_path / "missing", image="image"))


def test_headers_alone_give_the_records(tmp_path):
    lengths = [0, 1, 1000]
    stored = write(tmp_path / "a", [bytes(length) for length in lengths]).read_bytes()
    assert [span.length for span in record_spans(stored, tmp_path / "a")] == lengths
