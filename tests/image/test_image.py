"""The image, built by the real tools and run by podman: it does what the service does here, and no more than it may."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

import manifests
from conftest import CI, ROOT, WAIT_SECONDS, Serve, environment, free_port, run, until
from defects import artifact, simulator
from defects.image import containers, wheels

BASE = f"localhost/python:{sys.version_info.major}.{sys.version_info.minor}-debian"
MEGABYTE = 1e6
TEMPORARY = "/tmp:size=64m"  # noqa: S108 - the one place that a container may write to
HARDENED = ["--read-only", "--tmpfs", TEMPORARY, "--cap-drop", "all", "--security-opt", "no-new-privileges"]
MOUNTED_MODELS = (ROOT / "docs" / "mounted-models.md").read_text("utf-8")
WITHOUT = "reports-without"  # what is said of the image without a model
SECRET = "s3cr3t.example.org"  # noqa: S105 - stands for a password of the package index


def podman(*arguments: object, check: bool = True) -> str:
    done = subprocess.run(["podman", *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0 or not check, done.stderr
    return (done.stdout if check else done.stdout + done.stderr).strip()


@pytest.fixture(scope="module")
def base() -> str:
    """What the suite stands on; where it is missing, that is a reason to skip, in CI a failure."""
    trial = ["podman", "run", "--rm", "--pull", "never", BASE, "true"]
    if shutil.which("podman") and subprocess.run(trial, capture_output=True, check=False).returncode == 0:
        return BASE
    reason = f"podman that runs {BASE} is needed; on Debian, .ci/system-packages and .ci/base-image make them"
    if CI:
        pytest.fail(reason)
    pytest.skip(reason)


@dataclass(frozen=True)
class Image:
    name: str
    reports: Path
    said: str
    model: Path  # the artifact that was baked in


def image_tool(home: Path, reports: Path, *arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
    """What `make image` and `make push` run."""
    return subprocess.run(
        [sys.executable, "-m", "defects.image", "--output", reports, *map(str, arguments)],
        cwd=ROOT,
        env=environment(home, **settings),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def built(home: Path, reports: Path, base: str, engine: str, *options: object) -> tuple[str, str]:
    """An image's name, and what was printed while it was built."""
    done = image_tool(home, reports, "build", "--engine", engine, "--base", base, *options, PIP_TRUSTED_HOST=SECRET)
    assert done.returncode == 0, done.stdout + done.stderr
    packs = "image: packing defect_classifier:" in done.stderr and "simulated scan tunnel" in done.stderr
    assert packs == ("--without-model" not in options), done.stderr
    return json.loads((reports / "image.json").read_text())["image"], done.stdout


def trained(home: Path, seed: int) -> Path:
    """A model in the store of `home`, and where it lies."""
    done = run(home, "python", "train.py", "--rows", 2000, "--estimator", "logistic-regression", "--seed", seed)
    found = re.search(r"defect_classifier:(\S+)", done.stdout)
    assert found, done.stdout + done.stderr
    return home / "models" / artifact.NAME / found[1]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def image(base: str, home: Path) -> Iterator[Image]:
    model = trained(home, seed=1)
    name, said = built(home, home / "reports", base, "podman")
    yield Image(name, home / "reports", said, model)
    podman("rmi", "--force", name)


@pytest.fixture(scope="module")
def without_model(base: str, home: Path) -> Iterator[str]:
    name, _ = built(home, home / WITHOUT, base, "buildah", "--without-model")
    yield name
    podman("rmi", "--force", name)


@dataclass
class Container:
    name: str
    url: str

    def wait_ready(self) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            assert self.state()["Running"], podman("logs", self.name, check=False)
            try:
                if httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError(podman("logs", self.name, check=False))

    def described(self) -> dict[str, Any]:
        return dict(json.loads(podman("inspect", self.name))[0])

    def state(self) -> dict[str, Any]:
        return dict(self.described()["State"])

    def inside(self, file: str) -> str:
        """A file as the container sees it."""
        return podman("exec", self.name, "cat", file)


Start = Callable[..., AbstractContextManager[Container]]


@pytest.fixture
def start() -> Start:
    """Run an image, hardened, on a port of loopback or in a network; a context manager, which gives a `Container`."""

    @contextmanager
    def running(
        image: str, *options: object, inner: str | None = None, ready: bool = True, **settings: object
    ) -> Iterator[Container]:
        name, port = f"defects-test-{free_port()}", free_port()
        variables = [f"--env={key}={value}" for key, value in {"DEFECTS_DRAIN_SECONDS": 0, **settings}.items()]
        reached = ["--network", inner] if inner else ["--publish", f"127.0.0.1:{port}:3000"]
        podman("run", "--detach", "--name", name, *HARDENED, *reached, *options, *variables, image)
        try:
            container = Container(name, f"http://127.0.0.1:{port}")
            if inner:
                container.url = (
                    f"http://{container.described()['NetworkSettings']['Networks'][inner]['IPAddress']}:3000"
                )
            if ready:
                container.wait_ready()
            yield container
        finally:
            podman("rm", "--force", "--time", 5, name)

    return running


def ended(container: Container) -> int:
    """The exit code of a container that ends by itself."""
    return int(podman("wait", container.name))


@contextmanager
def network() -> Iterator[str]:
    """A network that leads nowhere but to this machine."""
    name = f"defects-test-{free_port()}"
    podman("network", "create", "--internal", name)
    try:
        yield name
    finally:
        podman("network", "rm", "--force", name)


@pytest.mark.parametrize("user", ["image's own", "123456:0"])
def test_it_answers_as_here_whoever_runs_it_with_nothing_to_write_and_nowhere_to_go(
    image: Image, start: Start, serve: Serve, user: str
) -> None:
    golden = json.loads((image.model / "golden.json").read_text())
    rows = np.array(golden["rows"], np.float32)
    tensor = {"name": "rows", "datatype": "FP32", "shape": list(rows.shape), "data": golden["rows"]}
    options = [] if user == "image's own" else ["--user", user]
    with network() as inner, start(image.name, *options, inner=inner) as container:
        there = httpx.post(f"{container.url}/v2/models/defect-classifier/infer", json={"inputs": [tensor]}).json()
        page = httpx.get(f"{container.url}/")
        model = httpx.get(f"{container.url}/model").json()
    outputs = {output["name"]: output["data"] for output in there["outputs"]}
    probabilities = np.array(outputs["probabilities"]).reshape(len(rows), -1)
    assert np.abs(probabilities - np.array(golden["probabilities"])).max() <= golden["tolerance"]
    assert (page.status_code, "swagger" in page.text) == (200, True)
    with serve(MODEL_DIR=image.model) as here:
        assert httpx.get(f"{here.url}/model").json() == model
        ours = httpx.post(f"{here.url}/v2/models/defect-classifier/infer", json={"inputs": [tensor]}).json()
    assert {o["name"]: o["data"] for o in ours["outputs"]} == outputs


def test_it_runs_without_a_shell_as_a_numeric_user_and_one_process(image: Image, start: Start) -> None:
    (described,) = json.loads(podman("image", "inspect", image.name))
    user, _, group = described["Config"]["User"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    with start(image.name) as container:
        assert container.inside("/proc/1/cmdline").split("\0")[:3] == ["python", "-m", "defects.serve"]
        status = container.inside("/proc/1/status")
    assert re.search(rf"^Uid:\t{user}\t", status, re.MULTILINE)
    assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)


def test_it_keeps_to_its_share_of_the_cpus(image: Image, start: Start) -> None:
    """The scorer slices a batch for as many CPUs as the quota has."""

    ask = "from defects import scoring; print(scoring.cpus())"

    def cpus(quota: int) -> int:
        with start(image.name, "--cpus", quota) as container:
            return int(podman("exec", container.name, "python", "-c", ask))

    assert [cpus(1), cpus(2)] == [1, 2]


def test_it_keeps_to_its_memory_under_load(image: Image, start: Start) -> None:
    body = json.dumps([simulator.SCHEMA.example] * 1024)
    codes: list[int] = []

    def ask(url: str) -> None:
        codes.extend(httpx.post(f"{url}/classify_batch", content=body).status_code for _ in range(20))

    with start(image.name, "--memory", "256m", "--cpus", 1) as container:
        callers = [threading.Thread(target=ask, args=(container.url,)) for _ in range(8)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        state = container.state()
    assert (state["Running"], state["OOMKilled"]) == (True, False)
    assert len(codes) == 160
    assert set(codes) <= {200, 503}
    assert 200 in codes


def test_sigterm_under_load_loses_nothing_and_exits_0(image: Image, start: Start) -> None:
    codes: list[int | str] = []
    stop = threading.Event()

    def ask(url: str) -> None:
        """Until a connection is refused: what was accepted must be answered."""
        with httpx.Client() as client:
            while not stop.is_set():
                try:
                    codes.append(client.post(f"{url}/classify", json=simulator.SCHEMA.example).status_code)
                except httpx.ConnectError:
                    return
                except httpx.TransportError as problem:
                    codes.append(repr(problem))
                    return

    with network() as inner, start(image.name, inner=inner, DEFECTS_DRAIN_SECONDS=1) as container:
        callers = [threading.Thread(target=ask, args=(container.url,)) for _ in range(4)]
        for caller in callers:
            caller.start()
        until(lambda: len(codes) > 100)
        podman("stop", "--time", 30, container.name)
        stop.set()
        for caller in callers:
            caller.join()
        assert container.state()["ExitCode"] == 0
    assert set(codes) == {200}


def test_the_environment_configures_it_and_only_that(image: Image, start: Start) -> None:
    digest = artifact.load(image.model).digest
    settings = {"DEFECTS_MODEL_NAME": "parcels", "DEFECTS_REVISION": "r7", "DEFECTS_MODEL_DIGEST": digest}
    with start(image.name, PORT=3000, **settings) as container:
        answer = httpx.get(f"{container.url}/v2/models/parcels/ready")
    assert (answer.status_code, answer.headers["x-revision"]) == (200, "r7")


def test_it_records_and_has_the_commands_of_the_history(image: Image, start: Start) -> None:
    url = "sqlite:////tmp/history.db"
    with start(image.name, DEFECTS_DATABASE_URL=url) as container:
        answer = httpx.post(f"{container.url}/classify", json=simulator.SCHEMA.example)
        history = ("exec", container.name, "python", "-m", "defects.history")

        def recorded() -> bool:
            tables = json.loads(podman(*history, "status", "--json"))["tables"]
            return bool(tables["predictions"]["rows"] == 1)

        until(recorded)
        assert "migrate" in podman(*history, "--help")
        assert "applied 0001_" in podman(*history, "migrate", "--url", "sqlite:////tmp/another.db")
    assert answer.status_code == 200


def test_nothing_is_compiled_at_a_start_with_everything_on(image: Image) -> None:
    """A container can't keep byte code, so what is missing is compiled at each start."""
    code = """
import os, sys
import asyncpg, obstore.store, defects.serve, defects.history.writer, defects.history.__main__, defects.replica
from defects.history.databases import database_of
database_of("postgresql://u@127.0.0.1:1/d"), database_of("sqlite:////tmp/h.db")
modules = [module for module in sys.modules.values() if getattr(module, "__cached__", None)]
print([module.__name__ for module in modules if not os.path.exists(module.__cached__)], len(modules))
"""
    missing, _, count = podman("run", "--rm", image.name, "python", "-c", code).rpartition(" ")
    assert missing == "[]"
    assert int(count) > 200


@pytest.mark.parametrize(
    ("settings", "code", "said"),
    [
        ({"DEFECTS_REQUEST_TIMEOUT_MS": "soon"}, 78, "DEFECTS_REQUEST_TIMEOUT_MS"),
        ({"DEFECTS_MODEL_DIGEST": f"sha256:{'0' * 64}"}, 65, "DEFECTS_MODEL_DIGEST asks"),
        ({"MODEL_DIR": "/mnt/models"}, 66, "no model: /mnt/models"),
    ],
)
def test_what_is_wrong_ends_it_with_one_line_and_its_exit_code(
    image: Image, start: Start, settings: dict[str, str], code: int, said: str
) -> None:
    with start(image.name, ready=False, **settings) as container:
        assert ended(container) == code
        (line,) = podman("logs", container.name, check=False).splitlines()
    assert said in line


def test_an_image_without_a_model_serves_the_mounted_one(
    without_model: str, start: Start, model_dir: Path, tmp_path: Path
) -> None:
    with start(without_model, ready=False) as container:
        assert ended(container) == 66
    mounted = tmp_path / "model"
    shutil.copytree(model_dir, mounted)
    mounted.chmod(0o700)  # root's alone, as a volume with the wrong fsGroup is
    with start(without_model, "--volume", f"{mounted}:/mnt/models:ro", ready=False) as container:
        assert ended(container) == 65
        assert "can't be read: Permission denied" in podman("logs", container.name, check=False)
    mounted.chmod(0o755)
    with start(without_model, "--volume", f"{mounted}:/mnt/models:ro") as container:
        served = httpx.get(f"{container.url}/model").json()
    assert served["digest"] == artifact.load(model_dir).digest


@pytest.fixture
def model_image(base: str, model_dir: Path, tmp_path: Path) -> Iterator[str]:
    """The image of a model, made as docs/mounted-models.md says."""
    (recipe,) = re.findall(r"^cat > build/Containerfile <<'END'\n(.*?)^END$", MOUNTED_MODELS, re.MULTILINE | re.DOTALL)
    context = tmp_path / "context"
    shutil.copytree(model_dir, context / "build" / "parcels")
    (context / "Containerfile").write_text(recipe.replace("docker.io/library/busybox:stable", base))
    name = f"localhost/defects-test-model-{free_port()}"
    podman("build", "--file", context / "Containerfile", "--tag", name, context)
    yield name
    podman("rmi", "--force", name)


def test_a_model_that_a_sidecar_links_is_waited_for(
    without_model: str, model_image: str, start: Start, model_dir: Path, tmp_path: Path
) -> None:
    """As KServe runs `oci://`: one namespace of processes, one user, a shared /mnt, and a link that comes late."""
    shared = tmp_path / "mnt"
    shared.mkdir()
    shared.chmod(0o777)
    runtime = {"MODEL_DIR": "/mnt/models", "DEFECTS_MODEL_WAIT_SECONDS": WAIT_SECONDS}
    both = ("--user", "1010", "--volume", f"{shared}:/mnt")
    with start(without_model, *both, ready=False, **runtime) as container:
        until(lambda: "waiting up to" in podman("logs", container.name, check=False))
        link = "ln -sf /proc/$$/root/models /mnt/models && sleep infinity"
        beside = ("--pid", f"container:{container.name}", "--network", "none")
        sidecar = podman("run", "--detach", *both, *beside, model_image, "sh", "-c", link)
        try:
            container.wait_ready()
            served = httpx.get(f"{container.url}/model").json()
        finally:
            podman("rm", "--force", "--time", 0, sidecar)
    assert served["digest"] == artifact.load(model_dir).digest


def test_uploads_at_once_do_not_kill_a_container_with_the_manifests_limit(image: Image, start: Start) -> None:
    """900 of 1.29 MB at once killed a pod with 1 GiB."""
    documents = manifests.render("base")
    limit = manifests.container(documents)["resources"]["limits"]["memory"].removesuffix("i").lower()
    rows = json.dumps([simulator.SCHEMA.example] * 1024).encode()
    body = rows[:-1] + b" " * (1_290_000 - len(rows)) + b"]"
    head = (
        f"POST /classify_batch HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    )
    given = manifests.settings(documents) | {"DEFECTS_DRAIN_SECONDS": "0"}
    with start(image.name, "--memory", limit, "--memory-swap", limit, "--cpus", 1, **given) as container:
        url = httpx.URL(container.url)
        program = str(ROOT / "tests" / "limits" / "uploads.py")
        command = [sys.executable, program, url.host, str(url.port), "900"]
        done = subprocess.run(command, input=head.encode() + b"\r\n" + body, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        statuses = json.loads(done.stdout)
        until(lambda: httpx.get(f"{container.url}/livez").status_code == 200)
        metrics = httpx.get(f"{container.url}/metrics").text
        state = container.state()
    assert (state["Running"], state["OOMKilled"]) == (True, False)
    assert set(statuses) <= {"200", "503", "408", "0"}  # the latter two on a slow machine
    assert not re.search(r'^defects_refused_total\{reason="bodies"\} 0\.0$', metrics, re.MULTILINE)


def test_the_deploy_check_finds_nothing_wrong_from_outside_and_from_inside(image: Image, start: Start) -> None:
    with start(image.name, DEFECTS_MAX_QUEUED_ROWS=1024) as container:
        command = [sys.executable, "-m", "defects.check", container.url, "--model-dir", str(image.model), "--overload"]
        outside = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        inside = podman("exec", container.name, "python", "-m", "defects.check", "http://127.0.0.1:3000")
    assert outside.returncode == 0, outside.stdout + outside.stderr
    assert " 0 failed" in outside.stdout
    assert " 0 failed" in inside


def test_it_says_what_it_is(image: Image) -> None:
    (described,) = json.loads(podman("image", "inspect", image.name))
    labels, model = described["Labels"], artifact.load(image.model)
    assert labels["defects.model.digest"] == model.digest
    assert labels["defects.model.version"] == model.version
    assert labels["org.opencontainers.image.base.name"] == BASE
    assert re.fullmatch(r"[0-9a-f]{40}(-changed)?", labels["org.opencontainers.image.revision"])
    assert f"{image.name.split(':')[0]}:bento-" not in podman("images", "--format", "{{.Repository}}:{{.Tag}}")
    assert image.name == f"defect-classifier:{labels['org.opencontainers.image.version']}-{model.digest[7:19]}"
    assert f"podman run --rm --read-only --tmpfs /tmp --cap-drop all -p 3000:3000 {image.name}" in image.said


def test_it_is_small_and_holds_only_what_serving_needs(image: Image) -> None:
    inventory = json.loads((image.reports / "image.json").read_text())
    assert sum(inventory["parts"].values()) < 230 * MEGABYTE
    names = {package["name"].lower() for package in inventory["packages"]}
    assert {"bentoml", "onnxruntime", "numpy", "asyncpg", "obstore"} <= names
    assert not names & {"scikit-learn", "scipy", "pandas", "locust", "pytest", "pip", "uv", "redis"}
    used = {package["name"].lower() for package in inventory["packages"] if package["used"]}
    assert not used & {"asyncpg", "obstore"}, "imported only where a setting asks for it"
    listed = podman("run", "--rm", image.name, "python", "-c", "import os; print(os.listdir('/home/bentoml/bento'))")
    assert set(eval(listed)) == {"src", "models", "bento.yaml"}  # noqa: S307


def test_no_secret_of_the_build_is_in_a_layer(image: Image, tmp_path: Path) -> None:
    podman("save", "--format", "docker-dir", "--output", tmp_path / "layers", image.name)
    layers = [file.read_bytes() for file in (tmp_path / "layers").iterdir()]
    assert sum(map(len, layers)) > 100 * MEGABYTE
    assert not any(SECRET.encode() in layer for layer in layers)
    look = "ls -d /etc/uv /root/.cache /root/.config /home/bentoml/bento/env /tmp/* 2>&1 || true"
    kept = podman("run", "--rm", "--user", "0", image.name, "sh", "-c", look).splitlines()
    assert [line for line in kept if "No such file" not in line] == []


def test_the_bill_of_materials_lists_what_is_installed(image: Image) -> None:
    sbom = json.loads((image.reports / "sbom.cdx.json").read_text())
    assert (sbom["bomFormat"], sbom["specVersion"]) == ("CycloneDX", "1.6")
    listed = {component["purl"] for component in sbom["components"]}
    code = "from importlib import metadata; print(*(f'{d.name}@{d.version}' for d in metadata.distributions()))"
    installed = podman("run", "--rm", image.name, "python", "-c", code).split()
    assert {f"pkg:pypi/{name.lower().replace('_', '-')}" for name in installed} <= listed
    assert any(purl.startswith("pkg:deb/debian/libc6@") for purl in listed)
    audited = json.loads((image.reports / "audit.json").read_text())
    assert "skipped" in audited or audited["dependencies"]
    assert re.search(r"^audit: (skipped: .+|\d+ packages looked up.*)$", image.said, re.MULTILINE)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """A real registry on loopback; its address."""
    program = shutil.which("docker-registry")
    if program is None:
        if CI:
            pytest.fail("docker-registry is missing; .ci/system-packages installs it")
        pytest.skip("docker-registry is not installed")
    address = f"127.0.0.1:{free_port()}"
    config = tmp_path / "registry.yml"
    storage = {"filesystem": {"rootdirectory": str(tmp_path / "storage")}}
    config.write_text(yaml.safe_dump({"version": 0.1, "storage": storage, "http": {"addr": address}}))
    with subprocess.Popen([program, "serve", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until(lambda: httpx.get(f"http://{address}/v2/").is_success)
        yield address
        process.terminate()


def test_it_is_pushed_and_another_model_ships_little(
    image: Image, without_model: str, home: Path, registry: str, tmp_path: Path
) -> None:
    """The other one has no model at all, and was built by another engine: packages and code are the same.

    Its byte code is not, for fewer modules are imported; that another model's is, the next test shows.
    """
    trusted = tmp_path / "registries.conf"
    trusted.write_text(f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n')
    repository = f"{registry}/warehouse/defect-classifier"

    def pushed(reports: Path) -> dict[str, int]:
        """The sizes of an image's layers in the registry, by digest."""
        done = image_tool(home, reports, "push", repository, CONTAINERS_REGISTRIES_CONF=trusted)
        assert done.returncode == 0, done.stderr
        name, digest, command = done.stdout.splitlines()
        setting = "-m defects.image set --overlay kserve/overlays/staging"
        assert command == f".venv/bin/python {setting} {repository}@{digest}"
        manifests = f"http://{registry}/v2/warehouse/defect-classifier/manifests"
        accept = {"accept": "application/vnd.oci.image.manifest.v1+json"}
        answer = httpx.get(f"{manifests}/{name.rsplit(':', 1)[1]}", headers=accept)
        assert answer.headers["docker-content-digest"] == digest
        return {layer["digest"]: layer["size"] for layer in answer.json()["layers"]}

    assert without_model != image.name
    first, second = pushed(image.reports), pushed(home / WITHOUT)
    assert sum(size for digest, size in second.items() if digest in first) > 50 * MEGABYTE
    *little, bytecode = sorted(size for digest, size in second.items() if digest not in first)
    assert 0 < sum(little) < 1 * MEGABYTE
    assert bytecode < 10 * MEGABYTE


def test_another_model_has_the_same_byte_code(image: Image, model_dir: Path) -> None:
    """So that its layer is not shipped again."""
    again = "python -B -m defects.image.bytecode /tmp/again 1>&2 && diff -rq /tmp/again /app/bytecode && echo same"
    mounted = ("--volume", f"{model_dir}:/mnt/models:ro", "--env=MODEL_DIR=/mnt/models", "--tmpfs", TEMPORARY)
    assert podman("run", "--rm", "--network=none", "--user", "0", *mounted, image.name, "sh", "-c", again) == "same"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["push", "UPPER/case"], "IMAGE: is 'UPPER/case'; expected registry/repository"),
        (["push", "example.org/defects"], "nothing to push: there is no"),
        (["build", "--engine", "docker"], "ENGINE: docker does not work here"),
    ],
)
def test_what_cannot_be_built_or_pushed_is_said_in_one_line(tmp_path: Path, command: list[str], said: str) -> None:
    if command[0] == "push" and "UPPER" in command[1]:
        (tmp_path / "image.json").write_text(json.dumps({"image": "defect-classifier:1", "engine": "podman"}))
    done = image_tool(tmp_path, tmp_path, *command, DOCKER_HOST="tcp://127.0.0.1:9")
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert said in line


@pytest.mark.parametrize(
    ("remote", "source"),
    [
        ("https://user:s3cr3t@example.org/acme/defects.git", "https://example.org/acme/defects.git"),
        ("git@example.org:acme/defects.git", "https://example.org/acme/defects.git"),
        ("ssh://git@example.org/acme/defects", "https://example.org/acme/defects"),
        ("/srv/somebody/defects", None),
    ],
)
def test_labels_say_where_the_source_is_and_no_more(tmp_path: Path, remote: str, source: str | None) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", "-C", tmp_path, *who, *arguments], capture_output=True, check=True)

    git("init")
    git("commit", "--allow-empty", "-m", "first")
    git("remote", "add", "origin", remote)
    before = containers.origin(tmp_path)
    assert before.get("org.opencontainers.image.source") == source
    (tmp_path / "new.py").touch()
    key = "org.opencontainers.image.revision"
    assert containers.origin(tmp_path)[key] == f"{before[key]}-changed"
    assert containers.origin(tmp_path / "nowhere") == {}


def test_wheels_are_those_of_the_platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = tmp_path / "requirements" / "serve.txt"
    requirements.parent.mkdir()
    requirements.write_text(wheels.pinned("orjson", ROOT / "requirements" / "serve.txt"))
    shutil.copy(ROOT / "requirements" / "dev.txt", requirements.parent)
    monkeypatch.setattr(containers, "ROOT", tmp_path)
    there = wheels.wheels(requirements, "linux/arm64", tmp_path)
    assert sorted(re.sub("-.*", "", wheel.name) for wheel in there.iterdir()) == ["orjson", "uv"]
    assert all("aarch64" in wheel.name for wheel in there.iterdir())
    assert wheels.wheels(requirements, "linux/arm64", tmp_path) == there


def test_its_start_is_measured(image: Image, home: Path, model_dir: Path, fitted: Path) -> None:
    record = image.reports / "image.json"
    done = run(
        home, "python", "-m", "benchmarks.startup", "--rounds", 1, "--model-dir", model_dir, "--pipeline", fitted,
        "--image", record,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for subject in ("container", "container, without byte code", "container that only imports"):
        assert f"\n| {subject} | " in done.stdout
    assert "start, container / the imports in one" in done.stdout
