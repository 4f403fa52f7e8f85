"""Write logs as JSON lines, or readable ones on a terminal, without holding up the event loop."""

from __future__ import annotations

import atexit
import io
import logging
import os
import queue
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import orjson

MAX_LINES = 10_000  # that wait to be written
FLUSH_LOOKS, LOOK_SECONDS = 200, 0.005  # a second, and more where the machine stops in between
GATHER_SECONDS = 0.01  # waking the writer for each line would cost a busy event loop more than the line itself

_COLOURS = {"DEBUG": 90, "INFO": 32, "WARNING": 33, "ERROR": 31, "CRITICAL": 35}


class JSONLines(logging.Formatter):
    """One JSON object a line; what is passed as `extra={"fields": …}` goes beside the message."""

    def __init__(self, always: dict[str, str]):
        super().__init__()
        self._always = always

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _printable(record.getMessage()),
            **self._always,
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = _printable(self.formatException(record.exc_info))
        return orjson.dumps(line, default=str).decode()


class Readable(logging.Formatter):
    """For a terminal: colours, and fields after the message."""

    def format(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        level = f"\033[{_COLOURS.get(record.levelname, 0)}m{record.levelname:7}\033[0m"
        fields = " ".join(f"\033[90m{k}=\033[0m{_visible(v)}" for k, v in getattr(record, "fields", {}).items())
        text = f"{clock} {level} {_visible(record.getMessage())}  {fields}".rstrip()
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def _printable(text: str) -> str:
    return text.encode(errors="replace").decode()


def _visible(value: object) -> str:
    """Escape control characters, with which a path could pretend to be another line."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in str(value))


class Writer(logging.Handler):
    """Writes lines from a thread: nobody waits for a reader of our output, and one who stops reading stops nobody.

    Lines that find `MAX_LINES` others waiting are dropped, and counted in `dropped`.
    """

    def __init__(self, stream: TextIO):
        super().__init__()
        self.dropped = 0
        self._stream = stream
        self._lines: queue.Queue[str] = queue.Queue(MAX_LINES)
        threading.Thread(target=self._write, name="log writer", daemon=True).start()
        atexit.register(self.flush)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self.format(record))
        except Exception:  # a full queue, or a record that can't be formatted: a log line must never raise
            self.dropped += 1

    def _write(self) -> None:
        while True:
            lines = [self._lines.get()]
            time.sleep(GATHER_SECONDS)
            lines += (self._lines.get_nowait() for _ in range(self._lines.qsize()))  # nobody else takes any
            try:
                self._stream.write("".join(f"{line}\n" for line in lines))
                self._stream.flush()
            except (OSError, ValueError):  # nobody reads, or it is closed
                self.dropped += len(lines)
            finally:
                for _ in lines:
                    self._lines.task_done()

    def flush(self) -> None:
        """Wait until every line is written, but not for long."""
        for _ in range(FLUSH_LOOKS):
            if not self._lines.unfinished_tasks:
                return
            time.sleep(LOOK_SECONDS)


def configure_logs(level: str, always: dict[str, str]) -> Writer:
    """Send every logger's lines, BentoML's and uvicorn's too, to standard output in one format."""
    stream = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # whatever the locale: it is JSON
    handler = Writer(stream)
    handler.setFormatter(Readable() if stream.isatty() else JSONLines(always))
    least = logging.getLevelNamesMapping()[level.upper()]
    logging.root.handlers = [handler]
    logging.root.setLevel(max(least, logging.WARNING))
    for name, usual in (("bentoml", logging.INFO), ("uvicorn.error", logging.WARNING), ("circus", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(max(least, usual))
    logging.getLogger("defects").setLevel(least)
    logging.getLogger("defects.access").setLevel(logging.INFO)  # it has a setting of its own
    logging.captureWarnings(capture=True)
    return handler


class AccessLog:
    """Log a line for an answer: for every error, and for an even share of the others."""

    def __init__(self, share: float):
        self._share, self._owed = share, 1.0 - share if share else 0.0  # the first is written, if any is
        self._logger = logging.getLogger("defects.access")

    def wants(self, *, failed: bool) -> bool:
        """Return whether this answer gets a line; to be called once for each answer."""
        if failed:
            return True
        self._owed += self._share
        if self._owed < 1:
            return False
        self._owed -= 1
        return True

    def write(self, fields: dict[str, Any]) -> None:
        """Log the line of an answer, at a level that its status decides."""
        status = fields["status"]
        level = logging.INFO if status < 400 else logging.ERROR if status == 500 else logging.WARNING
        self._logger.log(level, "%s %s", fields["method"], fields["status"], extra={"fields": fields})
