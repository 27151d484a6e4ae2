"""What mvlib logs, on the terminal while a command runs."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator

__all__ = ["messages_on_terminal"]


@contextlib.contextmanager
def messages_on_terminal(is_main: bool = True) -> Iterator[None]:
    """mvlib's messages on standard error, beside a progress bar; of the first process alone, but for warnings.

    Afterwards the logger is as it was, for whoever goes on in this process.
    """
    from tqdm import tqdm

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tqdm.write(self.format(record), file=sys.stderr)

    logger = logging.getLogger("mvlib")
    level, propagate = logger.level, logger.propagate
    handler = Handler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if is_main else logging.WARNING)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
