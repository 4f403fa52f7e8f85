"""Headless Chromium, for tests of what pages look like."""

from __future__ import annotations

import json
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

from conftest import CI

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
SECONDS = 60
FRAME = """<!doctype html><body style="margin:0"><iframe id="page" srcdoc="{page}" style="border:0;width:{width}px;
height:{height}px"></iframe><pre id="said"></pre><script>
const frame = document.getElementById("page");
const look = () => {{
  const found = ((page, window) => {{ {script} }})(frame.contentDocument, frame.contentWindow);
  document.getElementById("said").textContent = "said:" + JSON.stringify(found) + ":said";
}};
frame.onload = () => frame.contentDocument.fonts.ready.then(() => setTimeout(look, 500));  // laid out by then
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
