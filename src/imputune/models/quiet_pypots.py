"""Keeping PyPOTS silent, and the errors that it logs."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


class ErrorLog(logging.Handler):
    """Keeps the errors that PyPOTS logs: the exception it raises afterwards does not contain them."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep an error's text."""
        self.errors.append(record.getMessage())


@contextlib.contextmanager
def quiet() -> Iterator[ErrorLog]:
    """Keep PyPOTS's banner, its log and its libraries' warnings off the screen; give the log of its errors."""
    logger, log = logging.getLogger("PyPOTS running log"), ErrorLog()
    earlier, logger.handlers = logger.handlers, [log]
    unseen = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # PyPOTS's banner needs a stream with an encoding
    with contextlib.redirect_stdout(unseen), contextlib.redirect_stderr(unseen), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield log
        finally:
            logger.handlers = earlier
