"""Say what is wrong with a user's table: the error that reading and training raise, and how messages show things."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

MOST_SHOWN = 60  # characters of a cell in a message
MOST_PROBLEMS = 20  # that a message lists
MOST_NAMES = 50  # that a message lists


class BadData(Exception):
    """The data can't be used; the message names file, column, row and what was expected.

    It has more than one line where several columns can't be used. `options` are what the command needs in addition.
    """

    def __init__(self, *lines: str, options: Sequence[str] = ()) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
        self.options = tuple(options)


def shown(cell: str) -> str:
    """Return a cell as messages have it: its beginning, where it is long."""
    return cell if len(cell) <= MOST_SHOWN else f"{cell[:MOST_SHOWN]}…"


def among(name: str, known: Sequence[str]) -> str:
    """Return the names that there are, and which of them `name` may have been meant to be."""
    close = difflib.get_close_matches(name, known, n=1)
    more = f" and {len(known) - MOST_NAMES:,} more" if len(known) > MOST_NAMES else ""
    listed = ", ".join(map(repr, known[:MOST_NAMES]))
    return f"among {listed}{more}{f'; did you mean {close[0]!r}?' if close else ''}"


def option(name: str, value: str) -> str:
    """Return an option with its value as a shell takes it, such as `--ignore 'serial number'`."""
    between = "=" if value.startswith("-") else " "
    return f"{name}{between}{shlex.quote(value)}"


def _ignores(option: str) -> bool:
    return option.startswith("--ignore")


class Problems:
    """What is wrong with a table's columns, to be said at once."""

    def __init__(self, source: str):
        self._source = source
        self._found: list[BadData] = []

    @contextmanager
    def collected(self, *, by_option: bool = True, needed: bool = False) -> Iterator[None]:
        """Keep the error that is raised within; without its options where none would help, and without `--ignore`
        where the column is `needed`.
        """
        try:
            yield
        except BadData as error:
            options = [option for option in error.options if by_option and not (needed and _ignores(option))]
            self._found.append(BadData(*error.lines, options=options))

    def refuse(self) -> None:
        """Raise what was collected: one problem in one line; of more, a line for each of the first, and the options
        that help with all of them.
        """
        if not self._found:
            return
        options = " ".join(dict.fromkeys(option for error in self._found for option in error.options))
        if len(self._found) == 1:
            (error,) = self._found
            help_ = f"; or add {options} to the command" if options else ""
            raise BadData(f"{error}{help_}", options=error.options)
        lines = [f"{self._source}: {len(self._found):,} columns can't be used"]
        for error in self._found[:MOST_PROBLEMS]:
            line = str(error).removeprefix(f"{self._source}: ")
            lines.append(f"  {line}{': ' if error.options else ''}{' '.join(error.options)}")
        if len(self._found) > MOST_PROBLEMS:
            lines.append(f"  and {len(self._found) - MOST_PROBLEMS:,} more")
        raise BadData(*lines, *([f"add to the command: {options}"] if options else []))
