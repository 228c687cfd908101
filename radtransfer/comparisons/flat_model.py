"""A copy of a model in which every layer stands at the top and computes in float32."""

from collections.abc import Callable

import keras

from radtransfer.layers import with_dtype


def flat_model(
    model: keras.Model, *, prepare: Callable[[keras.KerasTensor], keras.KerasTensor] | None = None
) -> keras.Model:
    """A functional copy with the same weights and layer names, without sub-models, in float32.

    Args:
        model: Functional or Sequential, of one input; it is left as it is.
        prepare: Becomes the beginning of the graph; the input is then what `prepare` takes, of the same shape.

    Raises:
        ValueError: Layers of different sub-models share a name.
    """
    image = keras.Input(model.inputs[0].shape[1:], dtype="float32", name="image")
    copies: dict[int, keras.Operation] = {}

    def call(operation: keras.Operation, *inputs, **options):
        if isinstance(operation, keras.Sequential):
            x = inputs[0]
            for layer in operation.layers:
                x = call(layer, x)
            return x
        if isinstance(operation, keras.Model):
            return _walked(operation, image, inputs[0], call)
        if id(operation) not in copies:
            copies[id(operation)] = _copy(operation)
        output = copies[id(operation)](*inputs, **options)
        if isinstance(operation, keras.Layer):
            copies[id(operation)].set_weights(operation.get_weights())
            if isinstance(operation, keras.layers.Normalization):
                copies[id(operation)].finalize_state()  # else it computes with what it was built with
        return output

    return keras.Model(image, call(model, prepare(image) if prepare else image), name=model.name)


def is_flat(model: keras.Model) -> bool:
    """Whether the model needs no copy: no sub-models, all in float32."""
    return all(not isinstance(layer, keras.Model) and layer.compute_dtype == "float32" for layer in model.layers)


def _walked(
    model: keras.Model, image: keras.KerasTensor, tensor: keras.KerasTensor, call: Callable
) -> keras.KerasTensor:
    """The output of a functional model for `tensor`, `call` standing for each of its operations.

    Keras walks from an input layer only: `image` goes in, and `tensor` takes its place wherever it arrives.
    """

    def call_in_place(operation: keras.Operation, *inputs, **options):
        placed = keras.tree.map_structure(lambda x: tensor if x is image else x, inputs)
        return call(operation, *placed, **options)

    # Some applications are models of a list of inputs.
    inputs = [image] if isinstance(model.input, list) else image
    walked = keras.models.clone_model(
        model, input_tensors=inputs, clone_function=lambda operation: operation, call_function=call_in_place
    )
    return walked.outputs[0]


def _copy(operation: keras.Operation) -> keras.Operation:
    config = operation.get_config()
    return type(operation).from_config(with_dtype(config, "float32") if isinstance(operation, keras.Layer) else config)
