"""The command line, with one network more: `plain_small`, without batch norm. To be run, or to be imported from."""

import contextlib
import json
import os
import socket
import subprocess
import sys

from radtransfer.models.backbone import BACKBONES, Backbone


def build_plain(image, pooling):
    from keras import Model, layers

    x = layers.Conv2D(8, 3, strides=2, activation="relu", name="conv1")(image)
    x = layers.Conv2D(16, 3, strides=2, activation="relu", name="conv2")(x)
    if pooling == "avg":
        x = layers.GlobalAveragePooling2D(name="pool")(x)
    return Model(image, x)


PLAIN_SMALL = Backbone(
    name="plain_small",
    build=build_plain,
    stages={"stem": "conv1", "stage1": "conv2"},
    preprocessing="unit",
    parameters=1392,
    minimum_size=16,
    batch_norm_momentum=None,
    description="two convolutions, for tests",
)


@contextlib.contextmanager
def plain_network():
    """Inside, `plain_small` is a backbone of this process."""
    BACKBONES._entries["plain_small"] = f"{__name__}:PLAIN_SMALL"
    try:
        yield
    finally:
        del BACKBONES._entries["plain_small"]


def start(*arguments, **environment):
    """A process of its own that runs the command line; its output is text of both streams."""
    return subprocess.Popen(
        [sys.executable, __file__, *map(str, arguments)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def free_hosts(count):
    """HOST:PORT of this machine, at which nothing listens."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [f"127.0.0.1:{item.getsockname()[1]}" for item in sockets]


def start_workers(*arguments, outs, by_environment=False):
    """The processes of a `multiworker` run, the chief first, each with its own --out."""
    hosts, processes = free_hosts(len(outs)), []
    for k, out in enumerate(outs):
        task = {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": k}}
        named = () if by_environment else ("--workers", ",".join(hosts), "--worker-index", k)
        environment = {"TF_CONFIG": json.dumps(task)} if by_environment else {}
        processes.append(start(*arguments, "--distribute", "multiworker", *named, "--out", out, **environment))
    return processes


def finish(processes, timeout=240):
    """Exit codes and outputs, in order."""
    try:
        outputs = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], outputs


if __name__ == "__main__":
    from radtransfer.cli.main import main

    with plain_network():
        main()
