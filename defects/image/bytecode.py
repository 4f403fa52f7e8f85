"""Start the server once, and keep the byte code of what it imports: `python -m defects.image.bytecode DIRECTORY`.

Run while the image is built. Python can't keep byte code where it may not write, so a container without it would
compile everything at each start; compiling everything that is installed would make the image a quarter larger.
"""

from __future__ import annotations

import http.client
import os
import py_compile
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from defects.settings import Settings

READY_SECONDS = 120.0
# What a server or a command imports only where it is asked for, or for a model that is mounted: these libraries, and
# all modules that are packed but the one with BentoML's SDK, which the image's own command never imports. A library may
# be missing, as scikit-learn and PyArrow are in most images.
ON_DEMAND = """
import importlib, pkgutil
import defects
names = {module.name for module in pkgutil.walk_packages(defects.__path__, "defects.")} - {"defects.bentoml_service"}
for name in sorted(names | {"asyncpg", "obstore.store", "onnxruntime", "redis.asyncio", "skops.io"}):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name.partition(".")[0] == "defects":
            raise
"""


def main(directory: Path) -> None:
    """Start and end the server; raises `RuntimeError` where it doesn't become ready, or doesn't end as it should."""
    settings = Settings.from_environment()
    port = free_port()  # the build may share the network of the machine, where another server has the usual one
    own = {"HOST": "127.0.0.1", "PORT": str(port), "DEFECTS_DRAIN_SECONDS": "0", "PYTHONPYCACHEPREFIX": str(directory)}
    environment = {**os.environ, **own}
    process = subprocess.Popen([sys.executable, "-m", "defects.serve"], env=environment)
    try:
        wait(process, port, "/livez" if settings.build else "/readyz")
        if (status := ask(port, "/")) != 200:  # has BentoML's SDK imported
            raise RuntimeError(f"the page at / is answered with {status}; expected 200")
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(READY_SECONDS)
    if code:
        raise RuntimeError(f"the server ended with {code}; expected 0")
    subprocess.run([sys.executable, "-c", ON_DEMAND], env=environment, check=True)  # noqa: S603 - our own
    keep(directory)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait(process: subprocess.Popen[bytes], port: int, path: str) -> None:
    """Wait until `path` is answered with 200."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError):
            if ask(port, path) == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"the server did not answer {path} with 200 in {READY_SECONDS:g} s; exit code {process.poll()}")


def ask(port: int, path: str) -> int:
    """Send a GET request to this computer; return the status."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=READY_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def keep(directory: Path) -> None:
    """Compile the same files again, for an image: the source's time is not asked, and the same code gives the same
    bytes, so that a layer which didn't change has the same digest."""
    for compiled in directory.rglob("*.pyc"):
        source = Path("/", compiled.relative_to(directory)).with_name(compiled.name.split(".", 1)[0] + ".py")
        py_compile.compile(
            str(source), str(compiled), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
