"""What is no HTTP, or HTTP that two readers could read in two ways, gets the one shape of errors, and is counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from attacks import (
    ENTRY_POINTS,
    EXAMPLE,
    ask,
    ask_on,
    assert_common_headers,
    attack,
    beside_others,
    chunk,
    chunked_head,
    connect,
    get,
    head,
    log_lines,
    metric,
    parsed,
    post,
)
from conftest import Serve, Server, until

LENGTH = f"content-length: {len(EXAMPLE)}".encode()
HOST = b"host: x\r\n"
GET = get("/livez")


def with_fields(*fields: bytes, line: bytes = b"GET /livez HTTP/1.1", host: bytes = HOST) -> bytes:
    return line + b"\r\n" + host + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


MALFORMED = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    "garbage": b"\x00\xff\xfe garbage\r\n\r\n",
    "text": b"hello there\r\n\r\n",
    "an unknown method": with_fields(line=b"FETCH /livez HTTP/1.1"),
    "a method in lower case": with_fields(line=b"get /livez HTTP/1.1"),
    "a method with a NUL": with_fields(line=b"G\x00T /livez HTTP/1.1"),
    "no path": with_fields(line=b"GET HTTP/1.1"),
    "a path without a slash": with_fields(line=b"GET livez HTTP/1.1"),
    "a space in the path": with_fields(line=b"GET /li vez HTTP/1.1"),
    "a NUL in the path": with_fields(line=b"GET /livez\x00 HTTP/1.1"),
    "HTTP/2.0 as text": with_fields(line=b"GET /livez HTTP/2.0"),
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(30),
    "HTTP/0.9 as text": with_fields(line=b"GET /livez HTTP/0.9"),
    "HTTP/0.9": b"GET /livez\r\n\r\n",
    "HTTP/1.2": with_fields(line=b"GET /livez HTTP/1.2"),
    "HTTP/3.0": with_fields(line=b"GET /livez HTTP/3.0"),
    "another protocol": with_fields(line=b"GET /livez ICE/1.0"),
    "RTSP": with_fields(line=b"DESCRIBE /livez RTSP/1.0"),
    "no version": with_fields(line=b"GET /livez HTTP/"),
    "no Host": with_fields(host=b""),
    "two Hosts": with_fields(b"host: y"),
    "the same Host twice": with_fields(b"Host: x"),
    "a Host with a space": with_fields(host=b"host: a b\r\n"),
    "no Host of a prediction": post().replace(HOST, b""),
    "two Hosts of a prediction": post(EXAMPLE, "/classify", "Host: y"),
    "HTTP/2.0 as text of a prediction": post().replace(b"HTTP/1.1", b"HTTP/2.0"),
    "a NUL in a value": with_fields(b"a: b\x00c"),
    "a NUL in a name": with_fields(b"a\x00: b"),
    "a carriage return in a value": with_fields(b"a: b\rc"),
    "a control character in a value": with_fields(b"a: b\x01c"),
    "no colon": with_fields(b"nothing"),
    "a space before the colon": with_fields(b"a : b"),
    "no name": with_fields(b": b"),
    "a folded field": with_fields(b"a: b", b" c"),
    "a folded first field": b"GET /livez HTTP/1.1\r\n host: x\r\n\r\n",
    "two lengths": head("/classify", "content-length: 5", length=len(EXAMPLE)) + EXAMPLE,
    "the same length twice": head("/classify", LENGTH.decode(), length=len(EXAMPLE)) + EXAMPLE,
    "a length and chunks": chunked_head("/classify", LENGTH.decode()) + chunk(EXAMPLE) + b"0\r\n\r\n",
    "chunks and a length": post(EXAMPLE, "/classify", "transfer-encoding: chunked"),
    "a list of lengths": post().replace(LENGTH, LENGTH + b", " + LENGTH[16:]),
    "a negative length": post().replace(LENGTH, b"content-length: -1"),
    "a signed length": post().replace(LENGTH, b"content-length: +%d" % len(EXAMPLE)),
    "a hexadecimal length": post().replace(LENGTH, b"content-length: 0x10"),
    "an empty length": post().replace(LENGTH, b"content-length:"),
    "a length of 30 digits": post().replace(LENGTH, b"content-length: " + b"9" * 30),
    "chunks that are not the last coding": chunked_head().replace(b"chunked", b"chunked, gzip") + chunk(EXAMPLE),
    "chunked twice": chunked_head().replace(b"chunked", b"chunked, chunked") + chunk(EXAMPLE) + b"0\r\n\r\n",
    "an unknown transfer coding": chunked_head().replace(b"chunked", b"xchunked") + chunk(EXAMPLE),
    "a chunk's size that is none": chunked_head() + b"zz\r\n",
    "a negative chunk": chunked_head() + b"-1\r\n",
    "a chunk of 17 digits": chunked_head() + b"f" * 17 + b"\r\n",
    "a chunk longer than it says": chunked_head() + b"2\r\n{}}}\r\n",
    "a trailer that is none": chunked_head() + chunk(EXAMPLE) + b"0\r\nnothing\r\n\r\n",
    "a trailer with a NUL": chunked_head() + chunk(EXAMPLE) + b"0\r\na: \x00\r\n\r\n",
    "line feeds alone": b"GET /livez HTTP/1.1\nhost: x\n\n",
}


@pytest.fixture(scope="module", params=ENTRY_POINTS)
def server(request: pytest.FixtureRequest, serve: Serve, model_dir: Path) -> Iterator[Server]:
    with serve(command=ENTRY_POINTS[request.param], MODEL_DIR=model_dir, DEFECTS_ACCESS_LOG_SHARE=0) as running:
        yield running


def counted(server: Server) -> float:
    return metric(server, "defects_requests_total", route="malformed", code="400")


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_is_refused_in_the_one_shape(server: Server, sent: bytes) -> None:
    counts, lines = counted(server), len(log_lines(server))
    outcome = attack(server, [sent], seconds=5)
    assert len(outcome.answers) == 1, outcome
    answer = outcome.assert_refused(400)
    assert b"expected" in answer.body
    until(lambda: counted(server) == counts + 1, 5)
    until(lambda: len(log_lines(server)) > lines, 5)
    (line,) = log_lines(server)[lines:]
    told = json.loads(line)
    assert (told["route"], told["status"], told["request_id"]) == ("malformed", 400, answer.headers["x-request-id"])
    assert "exception" not in told


def test_what_comes_after_is_not_read_as_a_request(server: Server) -> None:
    """A second request in the body of a malformed first one, as smuggled past a proxy."""
    for sent in (MALFORMED["two lengths"], MALFORMED["a length and chunks"], MALFORMED["two Hosts"]):
        outcome = attack(server, [sent + get("/model") * 3])
        assert [answer.status for answer in outcome.answers] == [400]


def test_what_was_asked_before_is_answered(server: Server) -> None:
    outcome = attack(server, [post() + GET + post(b"{}") + b"garbage\r\n\r\n"])
    assert [answer.status for answer in outcome.answers] == [200, 200, 400, 400]
    assert outcome.ended
    for answer in outcome.answers:
        assert_common_headers(answer)


def test_many_malformed_requests_hold_nobody_up(server: Server) -> None:
    requests = [*MALFORMED.values()]
    with beside_others(server):
        for number in range(600):
            attack(server, [requests[number % len(requests)]], seconds=5).assert_refused(400)


WELL_FORMED = {
    "HTTP/1.0 without Host": b"GET /livez HTTP/1.0\r\n\r\n",
    "a prediction by HTTP/1.0 without Host": post().replace(HOST, b"").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "a Host with a port": get("/livez").replace(HOST, b"Host: defects.example:3000\r\n"),
    "a Host in brackets": get("/livez").replace(HOST, b"host: [::1]:3000\r\n"),
    "an empty Host": get("/livez").replace(HOST, b"host:\r\n"),  # as RFC 9112 wants where the authority is unknown
    "a URL with its host": get("http://x/livez"),
    "an empty line before": b"\r\n" + GET,
    "an empty value": get("/livez", "a:"),
    "Latin-1 in a value": get("/livez", "a: é"),
    "spaces around a value": get("/livez", "a: \t b \t "),
    "extensions of a chunk": chunked_head() + b"%x;a=1\r\n%b\r\n0\r\n\r\n" % (len(EXAMPLE), EXAMPLE),
    "trailers": chunked_head() + chunk(EXAMPLE) + b"0\r\nx-sum: 1\r\n\r\n",
    "an encoded colon": post(b'{"instances":[%b]}' % EXAMPLE, "/v1/models/defect-classifier%3Apredict"),
}


@pytest.mark.parametrize("sent", WELL_FORMED.values(), ids=WELL_FORMED)
def test_what_is_well_formed_is_answered(server: Server, sent: bytes) -> None:
    answer = ask(server, sent)
    assert answer.status == 200, answer
    assert_common_headers(answer)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (get("/livez"), 200),
        (get("/readyz"), 200),
        (get("/metrics"), 200),
        (get("/"), 200),
        (get("/docs.json"), 200),
        (get("/model"), 200),
        (get("/v2/health/ready"), 200),
        (get("/nowhere"), 404),
        (head("/livez", method="DELETE"), 405),
        (post(), 200),
        (post(b"{}"), 400),
        (post(EXAMPLE, "/classify", "content-encoding: br"), 415),
        (chunked_head() + chunk(EXAMPLE) + b"0\r\n\r\n", 200),
        (post(b" " * 10_000_000), 413),
        (post(EXAMPLE, "/classify", "x-request-timeout-ms: soon"), 400),
    ],
)
def test_every_answer_has_what_every_answer_has(server: Server, sent: bytes, status: int) -> None:
    outcome = attack(server, [sent.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1)])
    (answer,) = outcome.answers
    assert answer.status == status
    assert_common_headers(answer)


@pytest.mark.parametrize(
    "path",
    [
        "/%6detrics",
        "/%6Detrics",
        "/%2Fmetrics",
        "//metrics",
        "/./metrics",
        "/x/../metrics",
        "/%2e/metrics",
        "/metrics/",
        "/metrics%00",
        "/metrics%3F",
        "/metrics;a=1",
        "/METRICS",
        "/%256detrics",
        "/v2%2Fhealth/live",
        "/%6civez",
        "/%63lassify",
        "/classify%20",
        "/v1/models/defect%2Dclassifier",
        "/%ff",
        "/%",
        "/%zz",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_path_has_one_spelling(server: Server, path: str, method: str) -> None:
    """Who keeps `/metrics` from strangers, in an ingress, must need one rule."""
    sent = post(EXAMPLE, path) if method == "POST" else get(path)
    answer = ask(server, sent)
    assert answer.status in {400, 404}, answer
    assert b"python_info" not in answer.body
    assert_common_headers(answer)
    assert b"error" in answer.body


def test_a_request_target_with_a_query_or_a_host_is_the_same_path(server: Server) -> None:
    with closing(connect(server)) as opened:
        for path in ("/livez?verbose", "/livez?", "/livez?a=%6d", "http://elsewhere/livez"):
            assert ask_on(opened, get(path)).status == 200, path
        for path in ("http://elsewhere/%6detrics", "http://elsewhere//metrics"):
            assert ask_on(opened, get(path)).status in {400, 404}, path


def test_the_callers_request_id_is_kept_where_it_was_read(server: Server) -> None:
    sent = with_fields(b"x-request-id: mine", b"host: y")
    (answer,) = attack(server, [sent]).answers
    assert (answer.status, answer.headers["x-request-id"]) == (400, "mine")


def test_a_caller_who_closes_half_of_the_connection_gets_the_refusal(server: Server) -> None:
    with closing(connect(server)) as opened:
        opened.sendall(MALFORMED["garbage"])
        opened.shutdown(1)
        received = b""
        while came := opened.recv(1 << 16):
            received += came
    (answer,) = parsed(received)
    assert answer.status == 400
    assert_common_headers(answer)
