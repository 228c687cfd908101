"""The peer of the benchmarks: what one writes by hand to fine-tune a Keras network, with `model.fit`.

python handwritten.py step BACKBONE SIZE BATCH
python handwritten.py folds BACKBONE SIZE BATCH FOLDS
python handwritten.py train BACKBONE SIZE BATCH FOLDER
"""

import sys
import time

started = time.perf_counter()
import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from contest import serve, since, spent  # noqa: E402

imported = time.perf_counter()
APPLICATIONS = {
    "resnet50": "ResNet50",
    "densenet121": "DenseNet121",
    "inception_v3": "InceptionV3",
    "inception_resnet_v2": "InceptionResNetV2",
    "efficientnet_v2_b0": "EfficientNetV2B0",
    "convnext_tiny": "ConvNeXtTiny",
}
CBR = {
    "cbr_tiny": (5, (32, 64, 128, 256)),
    "cbr_small": (7, (32, 64, 128, 256)),
    "cbr_large_w": (7, (64, 128, 256, 512)),
    "cbr_large_t": (7, (32, 64, 128, 256, 512)),
}


def make_model(backbone, size):
    image = keras.Input((size, size, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(image)
    if backbone in CBR:
        kernel, channels = CBR[backbone]
        for block, width in enumerate(channels, start=1):
            x = keras.layers.Conv2D(width, kernel, padding="same", use_bias=False)(x)
            x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
            if backbone != "cbr_large_t" or block < len(channels):
                x = keras.layers.MaxPooling2D(3, strides=2, padding="same")(x)
        x = keras.layers.GlobalAveragePooling2D()(x)
    else:
        application = getattr(keras.applications, APPLICATIONS[backbone])
        options = {"include_preprocessing": False} if backbone in ("efficientnet_v2_b0", "convnext_tiny") else {}
        base = application(weights=None, include_top=False, input_shape=(size, size, 3), pooling="avg", **options)
        x = base(x)
    x = keras.layers.Dense(2, activation="softmax")(keras.layers.Dropout(0.5)(x))
    model = keras.Model(image, x)
    model.compile(optimizer=keras.optimizers.Adam(1e-4), loss="categorical_crossentropy", metrics=["accuracy"])
    return model


def batches(size, batch):
    images = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3)).astype(np.float32)
    targets = np.eye(2, dtype=np.float32)[np.arange(batch) % 2]
    return tf.data.Dataset.from_tensors((images, targets)).cache().repeat().prefetch(2)


def first_step(backbone, size, batch):
    began = spent()
    model = make_model(backbone, size)
    model.fit(batches(size, batch), steps_per_epoch=1, verbose=0)
    return model, since(began)


def step(backbone, size, batch):
    model, first = first_step(backbone, size, batch)
    data = batches(size, batch)

    def fit(steps):
        began = spent()
        model.fit(data, steps_per_epoch=steps, verbose=0)
        return since(began)

    fit(1)
    serve(fit, first=first, imports=imported - started, tensorflow=tf.__version__, keras=keras.__version__)


def folds(backbone, size, batch, count):
    seconds = []
    for _ in range(int(count)):
        keras.utils.clear_session()
        seconds.append(first_step(backbone, size, batch)[1])
    print(seconds)


def train(backbone, size, batch, folder):
    options = {"image_size": (size, size), "batch_size": batch, "label_mode": "categorical", "verbose": False}
    split = {"validation_split": 0.3, "seed": 0}
    training = keras.utils.image_dataset_from_directory(folder, subset="training", **split, **options)
    validation = keras.utils.image_dataset_from_directory(folder, subset="validation", **split, **options)
    model = make_model(backbone, size)
    best = keras.callbacks.ModelCheckpoint(f"{folder}.keras", save_best_only=True)
    model.fit(training, validation_data=validation, epochs=2, verbose=0, callbacks=[best])
    keras.models.load_model(f"{folder}.keras").predict(validation, verbose=0)


if __name__ == "__main__":
    what, backbone, size, batch, *rest = sys.argv[1:]
    {"step": step, "folds": folds, "train": train}[what](backbone, int(size), int(batch), *rest)
