"""Headless Chromium, for tests of what pages look like."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape, unescape
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from conftest import CI, WAIT_SECONDS

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
SECONDS = WAIT_SECONDS
FRAME = """<!doctype html><body style="margin:0"><iframe id="page" srcdoc="{page}" style="border:0;width:{width}px;
height:{height}px"></iframe><pre id="said"></pre><script>
const frame = document.getElementById("page");
const look = (before, times) => {{
  const found = JSON.stringify(((page, window) => {{ {script} }})(frame.contentDocument, frame.contentWindow));
  if (found !== before && times > 1) return setTimeout(look, 250, found, times - 1);  // not laid out yet
  document.getElementById("said").textContent = "said:" + found + ":said";
}};
frame.onload = () => frame.contentDocument.fonts.ready.then(() => setTimeout(look, 500, "", 8));
</script>"""


def chromium() -> str:
    """Skip where it is missing, but not in continuous integration."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        (pytest.fail if CI else pytest.skip)("chromium is not installed: run .ci/system-packages")
    return found


def run(scratch: Path, *options: object) -> str:
    """What it prints, with a new profile."""
    scratch.mkdir(exist_ok=True)
    profile = f"--user-data-dir={scratch / 'profile'}"
    command = [chromium(), *OPTIONS, profile, *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    shutil.rmtree(scratch / "profile", ignore_errors=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ask(scratch: Path, page: str, width: int, script: str, picture: Path | None = None) -> Any:
    """What a script says that runs beside the page, which has `page` and `window`, at a width in pixels."""
    file = scratch / "frame.html"
    file.write_text(FRAME.format(page=escape(page), width=width, height=5000, script=script), "utf-8")
    if picture:
        run(scratch, f"--window-size={max(500, width)},5000", f"--screenshot={picture}", file.as_uri())
    dom = run(
        scratch, f"--window-size={max(500, width)},5000", "--virtual-time-budget=4000", "--dump-dom", file.as_uri()
    )
    said = dom.rpartition("said:{")[2].rpartition("}:said")[0]
    return json.loads(unescape("{" + said + "}"))


class Tab:
    """A tab that is driven by the DevTools protocol, which no Content-Security-Policy stops."""

    def __init__(self, commands: BinaryIO, messages: BinaryIO):
        self._commands, self._messages = commands, messages
        self._number, self._session = 0, ""
        self.complaints: list[str] = []  # what the console has, and requests that failed or were blocked
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Network", "Page"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command; return its result."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        self._commands.write(json.dumps(command).encode() + b"\0")
        self._commands.flush()
        while (message := self._next()).get("id") != self._number:
            self._note(message.get("method"), message.get("params", {}))
        assert "result" in message, message
        result: dict[str, Any] = message["result"]
        return result

    def _next(self) -> dict[str, Any]:
        text = bytearray()
        while (byte := self._messages.read(1)) != b"\0":
            assert byte, "the browser ended"
            text += byte
        message: dict[str, Any] = json.loads(text)
        return message

    def _note(self, event: str | None, content: dict[str, Any]) -> None:
        if event == "Runtime.consoleAPICalled":
            self.complaints.append(f"console.{content['type']}: {[a.get('value') for a in content['args']]}")
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(f"exception: {content['exceptionDetails']}")
        elif event == "Log.entryAdded":
            self.complaints.append(f"{content['entry']['level']}: {content['entry']['text']}")
        elif event == "Network.loadingFailed":
            self.complaints.append(f"request failed: {content.get('blockedReason') or content['errorText']}")

    def run(self, script: str) -> Any:
        """Return the value of a script's expression."""
        found = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_for(self, script: str) -> Any:
        """Run a script until its value is true; return that."""
        until = time.monotonic() + SECONDS
        while not (found := self.run(script)):
            assert time.monotonic() < until, f"never true: {script}"
            time.sleep(0.05)
        return found


@contextmanager
def opened(scratch: Path, url: str) -> Iterator[Tab]:
    """Open a page of a real server, with a new profile."""
    (read_commands, commands), (messages, write_messages) = os.pipe(), os.pipe()
    pipes = f'exec "$@" 3<&{read_commands} 4>&{write_messages}'
    profile = f"--user-data-dir={scratch / 'profile'}"
    command = ["bash", "-c", pipes, "-", chromium(), *OPTIONS, "--remote-debugging-pipe", profile]
    process = subprocess.Popen(
        command, pass_fds=(read_commands, write_messages), stderr=subprocess.DEVNULL, start_new_session=True
    )
    os.close(read_commands)
    os.close(write_messages)
    try:
        with open(commands, "wb") as sending, open(messages, "rb") as receiving:  # noqa: PTH123 - descriptors
            tab = Tab(sending, receiving)
            tab.ask("Page.navigate", url=url)
            yield tab
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(scratch / "profile", ignore_errors=True)
