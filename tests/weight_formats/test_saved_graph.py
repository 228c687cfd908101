import re

import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from radtransfer.errors import WeightsError
from radtransfer.pretrained.saved_model import check_graph, refusal

IMAGES = tf.TensorSpec((None, 4, 4, 3), tf.float32)


class Network(tf.Module):
    """Gives the mean of an image, scaled, after something else."""

    def __init__(self, beside=lambda: None):
        super().__init__()
        self.scale, self.beside = tf.Variable(2.0), beside

    @tf.function(input_signature=[IMAGES])
    def __call__(self, images):
        self.beside()
        return self.scale * tf.reduce_mean(images, axis=(1, 2))


def saved(path, beside=lambda: None):
    network = Network(beside)
    tf.saved_model.save(network, str(path), signatures=network.__call__.get_concrete_function())
    return path


def nested(beside):
    """The same in a function that a branch calls."""
    return lambda: tf.cond(tf.random.uniform(()) > 0.5, lambda: (beside(), 1.0)[1], lambda: 0.0)


@pytest.mark.parametrize(
    ("beside", "what"),
    [
        (lambda: tf.io.read_file("/etc/passwd"), "reads or writes files (ReadFile"),
        (lambda: tf.io.write_file("stolen.txt", "x"), "reads or writes files (WriteFile"),
        (nested(lambda: tf.io.write_file("stolen.txt", "x")), "reads or writes files (WriteFile"),
        (lambda: tf.io.matching_files("*"), "reads or writes files (MatchingFiles"),
        (lambda: tf.numpy_function(lambda: 1.0, [], tf.float32), "runs Python (PyFunc"),
        (lambda: tf.py_function(lambda: 1.0, [], tf.float32), "runs Python (EagerPyFunc"),
        (lambda: tf.raw_ops.SaveV2(prefix="x", tensor_names=["a"], shape_and_slices=[""], tensors=[1.0]), "(SaveV2"),
        (lambda: tf.raw_ops.Abort(error_msg="x"), "ends the process (Abort"),
    ],
)
def test_a_graph_that_does_more_than_compute_is_refused(tmp_path, beside, what):
    with pytest.raises(WeightsError, match=re.escape(what)):
        check_graph(saved(tmp_path / "model", beside))


def test_a_graph_that_computes_passes(tmp_path):
    check_graph(saved(tmp_path / "model"))


def test_the_savers_function_is_refused_where_the_network_calls_it(tmp_path):
    path = saved(tmp_path / "model") / "saved_model.pb"
    model = SavedModel.FromString(path.read_bytes())
    (graph,) = model.meta_graphs
    functions = {function.signature.name: function for function in graph.graph_def.library.function}
    saver = next(name for name in functions if "traced_save" in name)
    network = next(function for name, function in functions.items() if "signature_wrapper" in name)
    network.node_def.add(name="more", op="StatefulPartitionedCall").attr["f"].func.name = saver
    path.write_bytes(model.SerializeToString())
    with pytest.raises(WeightsError, match="reads or writes files"):
        check_graph(path.parent)


@pytest.mark.parametrize("operation", ["SleepOp", "XlaCustomCall", "XlaCallModule", "XlaLaunch", "BatchFunction"])
@pytest.mark.parametrize("nested", [False, True])
def test_an_operation_that_is_on_no_list_is_refused_by_name(tmp_path, operation, nested):
    path = saved(tmp_path / "model") / "saved_model.pb"
    model = SavedModel.FromString(path.read_bytes())
    (graph,) = model.meta_graphs
    function = graph.graph_def.library.function.add()
    function.signature.name = "inner"
    if nested:
        function.node_def.add(name="more", op=operation)
    else:
        function.node_def.add(name="more", op="PartitionedCall").attr["f"].func.name = operation
    path.write_bytes(model.SerializeToString())
    with pytest.raises(WeightsError, match=rf"no image network needs \({operation} in inner\)"):
        check_graph(path.parent)


def test_an_operation_that_tensorflow_does_not_know_is_refused_by_name(tmp_path):
    path = saved(tmp_path / "model") / "saved_model.pb"
    path.write_bytes(path.read_bytes().replace(b"ReadVariableOp", b"ReadVariableOq"))
    with pytest.raises(WeightsError, match="no such operation, ReadVariableOq"):
        check_graph(path.parent)


def test_a_function_with_the_name_of_an_operation_is_refused(tmp_path):
    path = saved(tmp_path / "model") / "saved_model.pb"
    model = SavedModel.FromString(path.read_bytes())
    model.meta_graphs[0].graph_def.library.function.add().signature.name = "WriteFile"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(WeightsError, match="the name of an operation, WriteFile"):
        check_graph(path.parent)


def test_networks_of_tf_keras_and_of_the_hub_pass(tmp_path):
    import tf_keras

    layers = [tf_keras.layers.Input((8, 8, 3)), tf_keras.layers.RandomRotation(0.1), tf_keras.layers.Rescaling(1 / 255)]
    layers += [
        tf_keras.layers.SeparableConv2D(3, 3),
        tf_keras.layers.BatchNormalization(),
        tf_keras.layers.Dropout(0.1),
    ]
    layers += [tf_keras.layers.Reshape((36, 3)), tf_keras.layers.LSTM(4), tf_keras.layers.Dense(2, "softmax")]
    model = tf_keras.Sequential(layers)
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy", tf_keras.metrics.AUC()])
    model.save(tmp_path / "tf_keras", save_format="tf")
    check_graph(tmp_path / "tf_keras")

    class Hub(tf.Module):
        def __init__(self):
            super().__init__()
            self.kernel = tf.Variable(tf.ones((3, 3, 3, 4)))

        @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3)), tf.TensorSpec((), tf.bool)])
        def __call__(self, images, training):
            x = tf.image.per_image_standardization(tf.image.resize(images, (16, 16), antialias=True))
            x = tf.nn.swish(tf.nn.conv2d(x, self.kernel, 1, "SAME"))
            return tf.reduce_mean(tf.cond(training, lambda: tf.nn.dropout(x, 0.1), lambda: x), axis=(1, 2))

    tf.saved_model.save(Hub(), str(tmp_path / "hub"))
    check_graph(tmp_path / "hub")


def test_every_operation_of_tensorflow_that_is_told_a_file_is_refused():
    from tensorflow.core.framework.op_def_pb2 import OpList
    from tensorflow.python.client import pywrap_tf_session as session

    told = re.compile(r"file_?names?|.*file_path|file_pattern|.*path|prefix|directory|.*vocab_file|patterns?|.*_url?s?")
    of_text = {"RegexFullMatch", "RegexReplace", "StaticRegexFullMatch", "StaticRegexReplace"}
    operations = OpList.FromString(session.TF_GetBuffer(session.TF_GetAllOpList())).op
    filed = {
        operation.name
        for operation in operations
        for item in (*operation.input_arg, *operation.attr)
        if told.fullmatch(item.name) and "TPU" not in operation.name
    }
    assert len(filed) > 40
    assert {name for name in filed if refusal(name) is None} == of_text


def test_a_damaged_graph_is_told(tmp_path):
    path = saved(tmp_path / "model") / "saved_model.pb"
    path.write_bytes(b"\xff" + path.read_bytes()[1:])
    with pytest.raises(WeightsError, match="not a SavedModel"):
        check_graph(path.parent)
