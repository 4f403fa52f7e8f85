"""What tests/history/test_history_page.py shortens, as the page has it; for `make test-long`."""

from __future__ import annotations

from pathlib import Path

from conftest import Serve
from test_history_page import Reader, the_page_works


def test_the_page_works_as_it_is_written(tmp_path: Path, serve: Serve) -> None:
    the_page_works(Reader(tmp_path, serve, {}))
