from __future__ import annotations

import json
import logging
import sys
from contextlib import suppress
from typing import TextIO

import structlog


def configure_logging() -> None:
    """One JSON line an event on standard error. No event carries a vector, a photograph or a name."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=ForgivingFile(sys.stderr)),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


class ForgivingFile:
    """A text file whose reader may go away or whose disk may fill up: a line is lost then, and no call fails for it."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._file.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._file.flush()


class JsonFormatter(logging.Formatter):
    """What libraries log, in the same form: the event and where an error was raised, without its text."""

    def format(self, record: logging.LogRecord) -> str:
        document = {"level": record.levelname.lower(), "event": record.getMessage(), "logger": record.name}
        if record.exc_info and record.exc_info[0]:
            document["error"] = record.exc_info[0].__name__
        return json.dumps(document)
