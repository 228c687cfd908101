"""Processes of their own that need not import TensorFlow again: forked from one that has imported it and done nothing.

`run` and `start` are used like `subprocess.run` and `subprocess.Popen`. What must be seen in a Python that is quite
fresh (what is imported, what variables say while it is) is started with `subprocess` itself.
"""

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from types import SimpleNamespace

COMMAND = "from radtransfer.cli.main import main; main()"


class Process:
    """A forked process that runs `program` with `arguments` in `sys.argv[1:]`; `out` and `err` are pipes of text."""

    def __init__(self, *arguments, program=COMMAND, cwd=None, env=None):
        self.args, self.returncode = arguments, None
        facts = {"program": program, "argv": ["-c", *map(str, arguments)], "cwd": str(cwd or Path.cwd())}
        facts["env"] = dict(os.environ if env is None else env)
        pipes = [os.pipe(), os.pipe()]
        self.stdout, self.stderr = (os.fdopen(reading, encoding="utf-8", errors="replace") for reading, _ in pipes)
        self._answers = socket.socket(socket.AF_UNIX)
        self._answers.connect(_server())
        body = json.dumps(facts).encode()
        try:
            socket.send_fds(self._answers, [len(body).to_bytes(8, "big")], [writing for _, writing in pipes])
            self._answers.sendall(body)
        finally:
            for _, writing in pipes:
                os.close(writing)
        self.pid = int.from_bytes(self._answers.recv(8), "big")

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def poll(self):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(timeout=0)
        return self.returncode

    def wait(self, timeout=None):
        if self.returncode is None:
            ready, _, _ = select.select([self._answers], [], [], timeout)
            if not ready:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = int.from_bytes(self._answers.recv(8), "big", signed=True)
        return self.returncode

    def communicate(self, timeout=None):
        """All that it writes, and its end; nobody may have read from the pipes before."""
        texts = {}

        def read(name):
            texts[name] = getattr(self, name).read()

        readers = [threading.Thread(target=read, args=(name,)) for name in ("stdout", "stderr")]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join()
        return texts["stdout"], texts["stderr"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        self.wait()
        for item in (self.stdout, self.stderr, self._answers):
            item.close()


def start(*arguments, **options):
    """A command line in a process of its own, which runs on."""
    return Process(*arguments, **options)


def run(*arguments, check=False, **options):
    """A command line in a process of its own, to its end: `returncode`, `stdout` and `stderr`."""
    with Process(*arguments, **options) as process:
        out, err = process.communicate()
        if check and process.returncode:
            raise AssertionError(f"{process.returncode}: {arguments}\n{out}\n{err}")
        return SimpleNamespace(returncode=process.returncode, stdout=out, stderr=err)


def read_exports_so(patch):
    """Let what proves an export be forked too."""
    from radtransfer.exports import formats

    def run_python(command, **_):
        return run(*command[4:], program=command[3])  # after `python -P -c`

    patch.setattr(formats, "subprocess", SimpleNamespace(run=run_python))


@functools.cache
def _server():
    """Where the process listens that has imported TensorFlow; it ends with this one."""
    place = Path(tempfile.mkdtemp(prefix="warm-")) / "socket"
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import warm_process; warm_process.serve()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen([sys.executable, "-c", code, place], **pipes)
    if server.stdout.readline() != b"ready\n":
        raise RuntimeError("the process that imports TensorFlow ended")
    atexit.register(_stop, server, place)
    return str(place)


def _stop(server, place):
    server.stdin.close()
    server.wait()
    server.stdout.close()
    place.unlink(missing_ok=True)
    place.parent.rmdir()


def serve():
    """Import all that takes long, and fork a process for each request until stdin is closed."""
    from radtransfer.process import pin_variables

    pin_variables()
    import matplotlib.figure  # noqa: F401
    import pandas  # noqa: F401
    import sklearn.metrics  # noqa: F401

    import radtransfer.api  # noqa: F401
    import radtransfer.cli.main
    import radtransfer.exports.write
    import radtransfer.training.run  # noqa: F401

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen()
    waking, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(woken)
    print("ready", flush=True)
    running = {}
    while True:
        ready, _, _ = select.select([listener, waking, sys.stdin], [], [])
        if waking in ready:
            os.read(waking, 100)
            _report(running)
        if sys.stdin in ready:
            return
        if listener in ready:
            answers, _ = listener.accept()
            size, pipes, _, _ = socket.recv_fds(answers, 8, 2)
            body = b""
            while len(body) < int.from_bytes(size, "big"):
                body += answers.recv(1 << 20)
            pid = os.fork()
            if not pid:
                for item in (listener, answers, *running.values()):
                    item.close()
                os.close(waking)
                _become(json.loads(body), pipes)
            running[pid] = answers
            for pipe in pipes:
                os.close(pipe)
            answers.sendall(pid.to_bytes(8, "big"))


def _report(running):
    """Tell everybody whose process has ended how it did."""
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with running.pop(pid) as answers, contextlib.suppress(OSError):
            answers.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, "big", signed=True))


def _become(facts, pipes):
    """Turn this copy into the process that was asked for; never returns."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, pipe in enumerate((nothing, *pipes)):
            os.dup2(pipe, number)
            os.close(pipe)
        sys.stdin = open(0, closefd=False)  # noqa: PTH123, SIM115
        os.environ.clear()
        os.environ.update(facts["env"])
        os.chdir(facts["cwd"])
        sys.argv = facts["argv"]
        code = _exit_code(facts["program"])
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _exit_code(program):
    try:
        exec(compile(program, "-c", "exec"), {"__name__": "__main__"})
    except SystemExit as leaving:
        if leaving.code is None or isinstance(leaving.code, int):
            return leaving.code or 0
        print(leaving.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
