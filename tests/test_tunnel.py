"""The simulated tunnel as a client; tests/history/test_history_page.py lets it send to a real server."""

from __future__ import annotations

import pytest

from conftest import free_port
from defects import tunnel


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--drift", "camera"], "argument --drift: 'camera' is not NAME=NUMBER"),
        (["--drift", "nose=1"], "drift: 'nose' is unknown; expected one of dimensioner"),
        (["--class-mix", "ok=-1"], "class_mix: shares must not be negative"),
        (["--rows", "0"], "expected --rows of at least 1"),
        (["--labelled", "1.5"], "--labelled from 0 to 1"),
    ],
)
def test_a_knob_that_is_not_understood_is_a_usage_error(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        tunnel.main(["http://127.0.0.1:1", *arguments])
    assert ended.value.code == 2
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize("given", ["http://127.0.0.1:{}", "127.0.0.1:{}", "ftp://127.0.0.1:{}", "http://127.0.0.1:x/"])
def test_a_server_that_is_not_there_is_one_line(given: str) -> None:
    url = given.format(free_port())
    with pytest.raises(SystemExit) as ended:
        tunnel.main([url, "--rows", "1"])
    assert str(ended.value.code).startswith(f"defects.tunnel: {url}: ")
    assert "\n" not in str(ended.value.code)
