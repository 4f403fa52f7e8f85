"""Secrets of URLs are not shown, and requests to this machine go by no proxy."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import free_port
from tools import payloads, urls
from tools.fetching import fetch
from tools.payloads import BadPayload

SECRET = set("XYZ")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@given(st.text("XYZ?@#=&:%;", min_size=1), st.text("XYZ?@#=&:%;", min_size=1))
@pytest.mark.parametrize("word", ["http://{}/{}@host/m", "--host=http://{}:{}@host", "{}:{}@host", "--host={}:{}@host"])
def test_users_and_passwords_are_never_shown(word: str, user: str, password: str) -> None:
    assert not SECRET & set(urls.without_secrets(word.format(user, password)))


@given(st.from_regex("[XYZ@/:+%]+={0,2}", fullmatch=True))
@pytest.mark.parametrize("word", ["http://h/m?token={}", "--a=https://h?{}", "h/m?a=1&b={}", "http://h/#{}"])
def test_values_of_queries_are_never_shown(word: str, secret: str) -> None:
    assert not SECRET & set(urls.without_secrets(word.format(secret)))


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("http://127.0.0.1:3000/a", "http://127.0.0.1:3000/a"),
        ("http://user:secret@host:80/m?token=abc&b=c", "http://…@host:80/m?token=…&b=…"),
        ("--autoscaler-metrics=http://h/m?token=abc", "--autoscaler-metrics=http://h/m?token=…"),
        ("--rate", "--rate"),
        ("build/load", "build/load"),
    ],
)
def test_the_rest_is_shown(word: str, shown: str) -> None:
    assert urls.without_secrets(word) == shown


@contextmanager
def answering(body: bytes) -> Iterator[str]:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.wfile.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + body)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


@pytest.mark.parametrize("by_proxy", [False, True])
def test_requests_to_this_machine_go_by_no_proxy(monkeypatch: pytest.MonkeyPatch, *, by_proxy: bool) -> None:
    for name in PROXIES:
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy")
    with answering(b"here") as url:
        assert fetch(url, 10, by_proxy=by_proxy) == b"here"


@pytest.mark.parametrize(("by_proxy", "said"), [(True, b"proxy"), (False, None)])
def test_only_what_asks_for_a_proxy_goes_by_one(
    monkeypatch: pytest.MonkeyPatch, *, by_proxy: bool, said: bytes | None
) -> None:
    """The name can't be looked up, so that only a proxy can answer."""
    with answering(b"proxy") as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        try:
            assert fetch("http://nowhere.invalid/m", 10, by_proxy=by_proxy) == said
        except OSError:
            assert said is None


def test_where_nothing_answers_a_proxy_that_is_not_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://me:secret@proxy.test:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(BadPayload, match=r"not through the proxy http://…@proxy.test:3128 of this environment"):
        payloads.ask_model("http://nowhere.invalid")
    with pytest.raises(BadPayload, match=r"`make serve`$"):
        payloads.ask_model(f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("no_proxy", "nowhere.invalid")
    with pytest.raises(BadPayload, match=r"`make serve`$"):
        payloads.ask_model("http://nowhere.invalid")


@pytest.mark.parametrize("host", ["127.0.0.1:3000", "http://", "ftp://host", "http://host:port", "http://[::1", ""])
def test_what_is_no_url_is_said_to_be_none(host: str) -> None:
    with pytest.raises(BadPayload, match="is no URL; expected one such as"):
        payloads.check_host(host)


@pytest.mark.parametrize("host", ["http://me:secret@host", "http://host?token=secret", "http://host/#secret"])
def test_a_server_with_a_secret_in_its_url_is_refused_without_showing_it(host: str) -> None:
    with pytest.raises(BadPayload, match="credentials go into --header") as refused:
        payloads.check_host(host)
    assert "secret" not in str(refused.value)
