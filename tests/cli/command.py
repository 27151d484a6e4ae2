"""The command line as tests run it: in this process, where that tells the same, or in one of its own."""

import contextlib
import io
import os
import subprocess
import sys
from unittest import mock

from mvlib.cli import main


def start(*arguments, **environment):
    return subprocess.Popen([sys.executable, "-m", "mvlib", *map(str, arguments)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})


def here(*arguments, stdin=None, **environment):
    """In this process, which has imported torch already."""
    out, err = io.StringIO(), io.StringIO()
    with mock.patch.dict(os.environ, environment), mock.patch("sys.stdin", io.StringIO(stdin or "")), \
            contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as exit:  # of the parser
            status = exit.code
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())
