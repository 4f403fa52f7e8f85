"""Files are read in bounds, whatever they are, and JSON means one thing."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from defects import files
from defects.files import Missing, Unreadable


def test_a_regular_file_is_read_whole_also_through_links(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc" * 100_000)
    (tmp_path / "link").symlink_to("file")
    assert files.read(tmp_path / "link", 300_000) == b"abc" * 100_000
    (tmp_path / "empty").touch()
    assert files.read(tmp_path / "empty", 0) == b""


def test_a_file_whose_size_is_not_known_is_read_too() -> None:
    assert files.read("/proc/self/status", 1 << 20).startswith(b"Name:")
    with pytest.raises(Unreadable, match="has more than 10 bytes"):
        files.read("/proc/self/status", 10)


def test_no_more_than_expected_is_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 40)
    with pytest.raises(Unreadable, match="has 1,099,511,627,776 bytes; expected at most 1,024"):
        files.read(tmp_path / "sparse", 1024)


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for path, kind in {
            tmp_path / "pipe": "is a named pipe; expected a regular file",
            Path("/dev/zero"): "is a device; expected a regular file",
            tmp_path: "is a directory; expected a regular file",
            tmp_path / "socket": "No such device or address",
        }.items():
            with pytest.raises(Unreadable, match=kind):
                files.read(path, 1024)


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for name, problem in {
        "a\0b": "no file can have this name",
        "\ud800": "no file can have this name",
        "x" * 300: "File name too long",
        "loop": "symbolic links",
    }.items():
        with pytest.raises(Unreadable, match=problem):
            files.read(tmp_path / name, 10)
    for name in ("nowhere", "loop/x"):
        with pytest.raises(Unreadable):
            files.read(tmp_path / name, 10)
    with pytest.raises(Missing):
        files.read(tmp_path / "nowhere", 10)


def test_descriptors_are_closed(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(3):
        with pytest.raises(Unreadable):
            files.read(tmp_path, 10)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_json_is_read_as_it_is() -> None:
    text = '{"a": [1, -2.5e3, null, true, "\\u00e9\\ud83d\\ude00é"], "b": {}, "c": 18446744073709551615}'
    assert files.read_json(text.encode()) == {"a": [1, -2500.0, None, True, "é😀é"], "b": {}, "c": 2**64 - 1}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it is not JSON: Expecting value"),
        (b"{", "it is not JSON: "),
        (b'"\xff"', "its text is not UTF-8"),
        ("{}".encode("utf-16"), "its text is not UTF-8"),
        (b'["\\ud800"]', "its text is not UTF-8"),
        (b'{"\\udc00": 1}', "its text is not UTF-8"),
        (b"\xef\xbb\xbf{}", "it is not JSON: Unexpected UTF-8 BOM"),
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', "the key 'b' appears twice in an object"),
        (b"[NaN]", "it has NaN; expected finite numbers"),
        (b"[-Infinity]", "it has -Infinity; expected finite numbers"),
        (b"[1" + b"0" * 400 + b"]", "it has an integer of 401 digits; expected no more than 64 bits"),
        (b"[18446744073709551616]", "it has an integer of 20 digits"),
        (b"[" * 100_000 + b"]" * 100_000, "its JSON is nested too deep"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "its JSON is nested too deep"),
    ],
)
def test_json_of_two_meanings_or_none_is_refused(content: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        files.read_json(content)
    assert str(caught.value).isprintable()
