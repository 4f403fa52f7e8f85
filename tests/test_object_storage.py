"""Models in object storage: a real S3 server, and a small HTTP server that does what servers do on bad days."""

from __future__ import annotations

import json
import math
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from urllib.parse import unquote

import httpx
import numpy as np
import pytest
from starting import starting

from conftest import BENTOML, CI, MODULE, ROOT, WAIT_SECONDS, Command, Serve, free_port, run, until
from defects import artifact, pushing
from defects.locations import location_of
from defects.object_storage import Patience, open_storage
from defects.serving import fetched_model
from defects.settings import BadSetting, Fatal, Settings

MOTO = ROOT / ".venv-clients" / "bin" / "moto_server"
SECRET = "pa55w0rd"  # noqa: S105
CLOUD = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
QUICK = Patience(connect=5, stall=0.5, retry=0.5, total=WAIT_SECONDS)
LASTING = Patience(stall=0.5, retry=WAIT_SECONDS, total=WAIT_SECONDS)


# --- S3 --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment for an S3 server with the bucket `models`."""
    if not MOTO.exists() and not CI:
        pytest.skip("there is no moto_server: make .venv-clients/.installed")
    port, log = free_port(), tmp_path_factory.mktemp("moto") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([MOTO, "-H", "127.0.0.1", "-p", str(port)], stdout=output, stderr=output)
        try:
            url = f"http://127.0.0.1:{port}"
            until(lambda: process.poll() is not None or httpx.put(f"{url}/models").status_code == 200)
            assert process.poll() is None, log.read_text()
            yield CLOUD | {"AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true"}
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def cloud(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The same, for this process."""
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    return s3


def push(*arguments: object) -> int:
    """Run the command in this process; return its exit code."""
    try:
        pushing.main(artifact.load, artifact.read, ["push", *map(str, arguments)])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def fetch(uri: str, patience: Patience = QUICK, **settings: object) -> artifact.Artifact:
    return fetched_model.load(
        uri, Settings.from_environment({name: str(value) for name, value in settings.items()}), patience
    )


def fatal(uri: str, patience: Patience = QUICK, **settings: object) -> tuple[int, str]:
    """The exit code and the line of a start that fails."""
    with pytest.raises(Fatal) as caught:
        fetch(uri, patience, **settings)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value.exit_code, str(caught.value)


@pytest.fixture(scope="module")
def pushed(
    s3: dict[str, str], model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> subprocess.CompletedProcess[str]:
    """A model that was pushed to `s3://models/parcels/1`."""
    command = ("python", "-m", "defects.artifact", "push", model_dir, "s3://models/parcels/1/")
    return run(tmp_path_factory.mktemp("push"), *command, **s3)


def test_a_pushed_model_is_served(
    pushed: subprocess.CompletedProcess[str], s3: dict[str, str], serve: Serve, model_dir: Path
) -> None:
    """With the settings that the command has printed."""
    assert (pushed.returncode, pushed.stderr) == (0, "")
    told = dict(line.split("=", 1) for line in pushed.stdout.splitlines()[1:])
    assert told["MODEL_URI"] == "s3://models/parcels/1"
    loaded = artifact.load(model_dir)
    assert told["DEFECTS_MODEL_DIGEST"] == loaded.digest
    golden = loaded.golden
    with serve(**told, **s3) as server:
        values = [[None if math.isnan(value) else value for value in row] for row in golden.rows.tolist()]
        rows = [dict(zip(loaded.schema.names, row, strict=True)) for row in values]
        answers = httpx.post(f"{server.url}/classify_batch", json=rows).json()
        got = [list(answer["probabilities"].values()) for answer in answers]
        np.testing.assert_allclose(got, golden.probabilities, atol=1e-6)
        assert httpx.get(f"{server.url}/model").json()["digest"] == loaded.digest
        phases = httpx.get(f"{server.url}/readyz?verbose").json()["startup_seconds"]
        assert "model_fetch" in phases
        said = server.log.read_text()
    assert SECRET not in said


@pytest.mark.usefixtures("cloud", "pushed")
def test_a_model_whose_digest_is_not_the_pinned_one_is_not_served() -> None:
    code, line = fatal("s3://models/parcels/1", DEFECTS_MODEL_DIGEST=f"sha256:{'0' * 64}")
    assert (code, line.partition(":")[0]) == (65, "s3")
    assert "DEFECTS_MODEL_DIGEST asks" in line


@pytest.mark.parametrize(
    ("uri", "changes", "code", "said"),
    [
        ("s3://models/nowhere", {}, 66, "no model: s3://models/nowhere has no digests.json"),
        ("s3://models", {}, 66, "no model: s3://models has no"),
        ("s3://other-bucket/parcels/1", {}, 66, "no model: s3://other-bucket/parcels/1 has no"),
        ("s3://models/parcels/1", {"AWS_ALLOW_HTTP": "false"}, 78, "its endpoint is plain http; .*AWS_ALLOW_HTTP=true"),
        ("s3://models/parcels/1", {"AWS_ALLOW_HTTP": SECRET}, 78, "obstore can't use its AWS_…; expected AWS_ACCESS"),
        ("s3://models/parcels/1", {"AWS_ENDPOINT_URL": SECRET}, 78, "AWS_ENDPOINT_URL: is not a URL"),
        (
            "s3://models/parcels/1",
            {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None, "AWS_METADATA_ENDPOINT": "http://127.0.0.1:1"},
            69,
            "there are no valid credentials, and no role gives some; expected AWS_ACCESS_KEY_ID and",
        ),
        ("s3://models/parcels/1", {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, 69, "the connection is refused .tried"),
    ],
)
@pytest.mark.usefixtures("cloud", "pushed")
def test_what_cannot_be_fetched_is_one_line(
    uri: str, changes: dict[str, str | None], code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in changes.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    found, line = fatal(uri)
    assert found == code
    assert re.search(said, line), line


@pytest.mark.usefixtures("cloud")
def test_another_artifact_is_not_overwritten_unasked(
    model_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other, uri = tmp_path / "other", "s3://models/twice"
    shutil.copytree(model_dir, other)
    artifact.write(other, dict(artifact.load(model_dir).files) | {"card.html": b"another page"})
    assert push(model_dir, uri) == 0
    capfd.readouterr()
    assert push(other, uri) == 1
    refused = capfd.readouterr()
    assert refused.out == ""
    assert refused.err.startswith(f"defects: {uri}: another artifact is there; expected")
    assert fetch(uri).digest == artifact.load(model_dir).digest
    assert push(model_dir, uri) == 0, "the same one may be pushed again"
    assert push(other, uri, "--replace") == 0
    assert fetch(uri).digest == artifact.load(other).digest


def test_a_damaged_artifact_is_not_pushed(
    cloud: dict[str, str], model_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(model_dir, damaged)
    (damaged / "card.json").write_bytes(b"{}")
    assert push(damaged, "s3://models/damaged") == 65
    assert re.fullmatch(r"defects: .*card.json: changed or truncated.*\n", capfd.readouterr().err)
    assert "damaged" not in httpx.get(f"{cloud['AWS_ENDPOINT_URL']}/models").text


@pytest.mark.usefixtures("cloud")
def test_digests_come_last(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A push that is stopped before its end leaves nothing that anybody takes; a start waits for the rest."""
    uri, loaded = "s3://models/stopped", artifact.load(model_dir)
    storage = open_storage(uri, "URI", pinned=True)
    digests = (model_dir / artifact.DIGESTS).read_bytes()
    write, written = storage.write, []

    def stopped(name: str, content: bytes) -> None:
        written.append(name)
        if name == artifact.DIGESTS:
            raise KeyboardInterrupt
        write(name, content)

    monkeypatch.setattr(storage, "write", stopped)
    with pytest.raises(KeyboardInterrupt):
        pushing.push(storage, loaded, digests, replace=False)
    assert set(written[:-1]) == set(loaded.files)
    assert fatal(uri)[0] == 66
    monkeypatch.setattr(fetched_model, "LOOK_SECONDS", 0.1)
    waiting = Event()
    monkeypatch.setattr(fetched_model, "_log_waiting", lambda *_: waiting.set())
    thread = Thread(target=lambda: waiting.wait(WAIT_SECONDS) and write(artifact.DIGESTS, digests))
    thread.start()
    assert fetch(uri, DEFECTS_MODEL_WAIT_SECONDS=600).digest == loaded.digest
    thread.join()


# --- bad days --------------------------------------------------------------------------------------------------------


class BadDays(ThreadingHTTPServer):
    """Serves a model's files below `/what/ever/`, as the first part of the path says."""

    daemon_threads = True

    def __init__(self, model: Path):
        super().__init__(("127.0.0.1", 0), Handler)
        self.model, self.asked = model, Counter[str]()
        self.authorization: list[str | None] = []
        self.over = Event()
        self.elsewhere = ""  # the URL of another one

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: BadDays

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        how, _, name = self.path.strip("/").partition("/")
        name = unquote(name.partition("?")[0]).rpartition("/")[2]
        self.server.asked[how] += 1
        self.server.authorization.append(self.headers.get("authorization"))
        content = (self.server.model / name).read_bytes()
        times = self.server.asked[how]
        with_problem = getattr(self, f"_{how}", None)
        if with_problem is not None and with_problem(content, times):
            return
        self._send(200, content)

    def _send(self, status: int, content: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("content-length", str(len(content) if length is None else length))
        self.send_header("etag", '"1"')
        self.send_header("last-modified", "Fri, 27 Nov 2026 06:00:00 GMT")
        self.end_headers()
        self.wfile.write(content)

    def _twice_503(self, _: bytes, times: int) -> bool:
        if times < 3:
            self._send(503, f"busy, {SECRET}".encode())
        return times < 3

    def _always_500(self, *_: object) -> bool:
        self._send(500, f"<AWSAccessKeyId>{SECRET}</AWSAccessKeyId>".encode())
        return True

    def _refused(self, *_: object) -> bool:
        self._send(403, SECRET.encode())
        return True

    def _cut(self, content: bytes, times: int) -> bool:
        if times == 2:
            self._send(200, content[: len(content) // 2], len(content))
            self.close_connection = True
        return times == 2

    def _stalls(self, content: bytes, times: int) -> bool:
        if times == 2:
            self._send(200, content[: len(content) // 2], len(content))
            self.server.over.wait(WAIT_SECONDS)
        return times == 2

    def _silent(self, *_: object) -> bool:
        self.server.over.wait(WAIT_SECONDS)
        return True

    def _moved(self, *_: object) -> bool:
        self._send(302, b"", location=f"/plain/{self.path.rpartition('/')[2]}?signature={SECRET}")
        return True

    def _elsewhere(self, *_: object) -> bool:
        self._send(302, b"", location=f"{self.server.elsewhere}/plain/{self.path.rpartition('/')[2]}")
        return True

    def _circle(self, *_: object) -> bool:
        self._send(302, b"", location=f"{self.path}?signature={SECRET}")
        return True

    def _nowhere(self, *_: object) -> bool:
        self._send(301, b"")
        return True

    def _endless(self, *_: object) -> bool:
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        return self._go_on(b"10000\r\n" + b" " * 65536 + b"\r\n")

    def _large(self, *_: object) -> bool:
        self._send(200, b"", 1 << 40)
        return self._go_on(b" " * 65536)

    def _go_on(self, piece: bytes) -> bool:
        self.close_connection = True
        with suppress(OSError):  # the client leaves
            while not self.server.over.is_set():
                self.wfile.write(piece)
        return True

    def _half(self, content: bytes, times: int) -> bool:
        if times > 1:
            self._send(200, content[: len(content) // 2])
        return times > 1

    def _page(self, *_: object) -> bool:
        self._send(200, b"<html>Sign in</html>")
        return True


@pytest.fixture(scope="module")
def bad_days(model_dir: Path) -> Iterator[BadDays]:
    with closing_server(BadDays(model_dir)) as server:
        yield server


@contextmanager
def closing_server(server: BadDays) -> Iterator[BadDays]:
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("how", ["plain", "twice_503", "cut", "stalls", "moved"])
def test_what_passes_is_tried_again(bad_days: BadDays, how: str, model_dir: Path) -> None:
    assert fetch(f"{bad_days.url}/{how}/model", LASTING).digest == artifact.load(model_dir).digest
    requests = len(json.loads((model_dir / artifact.DIGESTS).read_text())) + 1
    assert bad_days.asked[how] == requests + {"twice_503": 2, "cut": 1, "stalls": 1}.get(how, 0)


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("always_500", 69, r": it answers with status 500 \(tried \d+ times\)"),
        ("silent", 69, r": it does not answer in time \(tried \d+ times\)"),
        ("circle", 69, ": it redirects in a circle"),
        ("refused", 78, r": access is refused \(status 403\)"),
        ("nowhere", 78, ": it is in another place"),
        ("endless", 65, "/digests.json: can't be read: is sent without its length; expected Content-Length"),
        ("large", 65, "/digests.json: can't be read: has 1,099,511,627,776 bytes; expected at most 1,048,576"),
        ("page", 65, "/digests.json is not one that this version reads: it is not JSON"),
        ("half", 65, ": changed or truncated; its SHA-256 is not the one in digests.json"),
    ],
)
def test_what_does_not_pass_is_one_line(bad_days: BadDays, how: str, code: int, said: str) -> None:
    place = f"{bad_days.url}/{how}/model"
    found, line = fatal(place)
    assert found == code
    assert re.search(said, line), line
    assert line.startswith(place)
    if code != 69:
        assert bad_days.asked[how] <= 2, "it can't pass, and is not tried again"


def test_all_files_together_are_bounded(bad_days: BadDays, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "MAX_ALL", 10_000)
    code, line = fatal(f"{bad_days.url}/plain/model")
    assert code == 65
    assert re.search(r"can't be read: has [\d,]+ bytes; expected at most \d", line), line


def test_the_time_of_all_requests_is_bounded(bad_days: BadDays) -> None:
    code, line = fatal(f"{bad_days.url}/silent/model", Patience(stall=WAIT_SECONDS, retry=0, total=0.3))
    assert (code, line) == (69, f"{bad_days.url}/silent/model: fetching the model took longer than 0.3 s")


def test_a_damaged_model_is_waited_for_and_said(bad_days: BadDays, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetched_model, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(fetched_model, "_log_waiting", lambda *_: None)  # it sets up the logs of the process
    code, line = fatal(f"{bad_days.url}/half/model", DEFECTS_MODEL_WAIT_SECONDS=0.2)
    assert code == 65
    assert re.search(r" \(waited \d+\.\d s for it; DEFECTS_MODEL_WAIT_SECONDS is 0\.2\)$", line)


def test_a_user_is_asked_with_and_never_named(model_dir: Path) -> None:
    """Neither in a message nor to another host that the first one names."""
    with closing_server(BadDays(model_dir)) as server, closing_server(BadDays(model_dir)) as other:
        server.elsewhere = other.url.replace("127.0.0.1", "localhost")
        uri = server.url.replace("://", f"://user:{SECRET}@")
        assert fetch(f"{uri}/elsewhere/model").digest == artifact.load(model_dir).digest
        assert {str(given)[:6] for given in server.authorization} == {"Basic "}
        assert set(other.authorization) == {None}
        code, line = fatal(f"{uri}/always_500/model")
    assert (code, "user" in line) == (69, False)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("parcels", "is no place in object storage, and a directory belongs into MODEL_DIR"),
        ("file:///models", "is no place in object storage, and a directory belongs into MODEL_DIR"),
        (f"ftp://user:{SECRET}@host/x", "has another scheme"),
        (f"https://host/x?X-Amz-Signature={SECRET}", "has a query or a fragment"),
        (f"https://host/x#{SECRET}", "has a query or a fragment"),
        (f"s3://key:{SECRET}@bucket/x", "has a user name, but credentials belong into environment variables"),
        ("s3:///x", "names no host or bucket"),
        ("s3://bucket:80/x", "names no host or bucket"),
        ("https:///x", "names no host or bucket"),
        ("https://host:port/x", "is no URI"),
        ("https://[::1/x", "is no URI"),
        ("s3://bucket/../x", "has a path with other parts"),
        ("s3://bucket/a//b", "has a path with other parts"),
        ("s3://bucket/ü", "is longer than 1000 characters, or has some"),
        (f"s3://bucket/{'x' * 1000}", "is longer than 1000 characters, or has some"),
        ("s3://bucket/a b", "is longer than 1000 characters, or has some"),
        (f"http://user:{SECRET}@example.com/x", "is plain http to another computer"),
        ("http://example.com/x", "is plain http to another computer; expected https, or DEFECTS_MODEL_DIGEST"),
    ],
)
def test_a_wrong_uri_is_one_line_without_its_secret(uri: str, said: str) -> None:
    code, line = fatal(uri)
    assert code == 78
    assert line.startswith(f"MODEL_URI: {said}"), line


def test_plain_http_needs_a_pinned_digest_unless_it_is_here() -> None:
    assert location_of("http://[::1]:9000/x", "URI").local
    assert location_of("http://127.8.0.1/x", "URI").local
    assert not location_of("http://localhost.example.com/x", "URI").local
    assert open_storage("http://models.svc/x", "URI", pinned=True).location.host == "models.svc"
    with pytest.raises(BadSetting):
        open_storage(f"http://user:{SECRET}@models.svc/x", "URI", pinned=True)


def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    code, line = fatal("s3://bucket/x")
    assert code == 78
    assert "needs the extra 'storage'" in line


CLOUDS = [
    (
        "az://models/parcels",
        {"AZURE_STORAGE_ACCOUNT_NAME": "account", "AZURE_SKIP_SIGNATURE": "true", "AZURE_ALLOW_HTTP": "true"},
        "AZURE_STORAGE_ENDPOINT",
    ),
    ("gs://models/parcels", {"GOOGLE_SKIP_SIGNATURE": "true", "GOOGLE_ALLOW_HTTP": "true"}, "GOOGLE_BASE_URL"),
]


@pytest.mark.parametrize(("uri", "settings", "endpoint"), CLOUDS, ids=["az", "gs"])
def test_other_clouds_are_asked_at_their_endpoints(
    uri: str,
    settings: dict[str, str],
    endpoint: str,
    bad_days: BadDays,
    monkeypatch: pytest.MonkeyPatch,
    model_dir: Path,
) -> None:
    """Neither of them is here: what is shown is that their files are asked for, and taken."""
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(endpoint, f"{bad_days.url}/plain")
    assert fetch(uri).digest == artifact.load(model_dir).digest
    monkeypatch.setenv(endpoint, SECRET)
    assert fatal(uri) == (78, f"{endpoint}: is not a URL; expected http[s]://host[:port]")


# --- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [MODULE, BENTOML], ids=["defects.serve", "bentoml serve"])
def test_a_signal_ends_the_fetching_at_once_with_0(command: Command, tmp_path: Path, model_dir: Path) -> None:
    with closing_server(BadDays(model_dir)) as bad_days:
        given = {"MODEL_DIR": "", "MODEL_URI": f"{bad_days.url}/silent/model"}
        with starting(tmp_path, tmp_path, command, **given) as server:
            until(lambda: bad_days.asked["silent"] > 0 or server.process.poll() is not None)
            assert server.process.poll() is None, server.said()
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(WAIT_SECONDS) == 0
        assert "Traceback" not in server.said()
