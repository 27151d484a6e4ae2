"""Commands without the cost of their imports: a process that has imported torch, and forks for each of them.

`Forks` starts that process and writes programs named `mvlib`, `python` and `torchrun` into a folder. On PATH they are
what a shell runs; they hand their arguments, folder, environment and streams over, and end with the command's status.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[2]

_IMPORTS = (  # nothing that starts threads
    "matplotlib.pyplot", "mvlib.cli.finetune_command", "mvlib.factory", "mvlib.inference.torch_session",
    "mvlib.models.efficientnet", "mvlib.models.resnet", "mvlib.optimization.pipeline", "mvlib.train.run",
    "pyarrow.parquet", "torchvision.transforms.v2")
_CLIENT = """\
#!{python} -ESs
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    order = [os.path.basename(sys.argv[0]), *sys.argv[1:]], os.getcwd(), dict(os.environ)
    message = json.dumps(order).encode()
    socket.send_fds(server, [len(message).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(message)
    sys.exit(int(server.recv(8) or b"1"))
"""


class Forks:
    """The process, and the folder of programs that ask it, `bin`.

    Args:
        folder: An empty folder with a short path (a socket's has at most some hundred characters).
    """

    def __init__(self, folder: Path) -> None:
        address = str(folder / "socket")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(address)
        self._listener.listen()
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name in ("mvlib", "python", "torchrun"):
            (self.bin / name).write_text(_CLIENT.format(python=sys.executable, address=address))
            (self.bin / name).chmod(0o755)
        number = self._listener.fileno()
        self._process = subprocess.Popen([sys.executable, "-m", "tests.docs.forks", str(number)], cwd=ROOT,
                                         pass_fds=[number],  # torch reads this once
                                         env={**os.environ, "OMP_NUM_THREADS": "1"})

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._listener.close()


def _serve(listener: socket.socket) -> None:
    for module in _IMPORTS:
        importlib.import_module(module)
    while True:
        connection, _ = listener.accept()
        head, streams, *_ = socket.recv_fds(connection, 4, 3)
        message = b""
        while len(message) < int.from_bytes(head, "big"):
            message += connection.recv(1 << 16)
        if os.fork():
            for stream in streams:
                os.close(stream)
            connection.close()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            continue
        listener.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        status = 1
        try:
            status = _run(*json.loads(message))
        finally:
            connection.sendall(str(status).encode())
            os._exit(status)


def _run(words: list[str], folder: str, environment: dict[str, str]) -> int:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    program, *arguments = words
    status: object = 0
    try:
        if program == "mvlib":
            from mvlib.cli import main

            sys.argv = words
            status = main()
        elif program == "torchrun":
            sys.argv = words
            runpy.run_module("torch.distributed.run", run_name="__main__", alter_sys=True)
        elif arguments[:1] == ["-c"]:
            sys.argv = ["-c", *arguments[2:]]
            exec(compile(arguments[1], "-c", "exec"), {"__name__": "__main__"})
        elif arguments[:1] == ["-m"]:
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments
            sys.path.insert(0, str(Path(arguments[0]).parent))
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    if isinstance(status, str):
        print(status, file=sys.stderr, flush=True)
        return 1
    return int(status or 0)  # type: ignore[call-overload]


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
