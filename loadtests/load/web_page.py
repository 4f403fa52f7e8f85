"""What a load test adds to Locust's own page: how the last run ended, and why, with a link to its report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from flask import Response, abort, jsonify, request, send_from_directory

from loadtests.report.page import PAGE
from loadtests.results import SUMMARY

SCRIPT = Path(__file__).with_name("web_page.js")
TAG = '<script src="./load-test/page.js"></script>\n  </body>'


class Shown(NamedTuple):
    """What the page shows: the last run's state, its verdict or its error, the reasons, and its directory's name."""

    is_on: bool
    line: str = ""
    reasons: tuple[str, ...] = ()
    directory: str = ""


def extend(web_ui: Any, out: Path, shown: Callable[[], Shown]) -> None:
    """Add routes to a `locust.web.WebUI`, and to its page a script that asks them; reports are of runs in `out`."""

    def add(path: str, view: Callable[..., Any]) -> None:
        endpoint = f"load-test {path}".replace(".", " ")
        web_ui.app.add_url_rule(f"{base}/load-test/{path}", endpoint, web_ui.auth_required_if_enabled(view))

    def with_script(response: Response) -> Response:
        if request.path in (f"{base}/", base) and response.mimetype == "text/html":
            response.set_data(response.get_data(as_text=True).replace("</body>", TAG))
        return response

    base = web_ui.environment.parsed_options.web_base_path if web_ui.environment.parsed_options else ""
    add("state.json", lambda: jsonify(shown()._asdict()))
    add("page.js", lambda: send_from_directory(SCRIPT.parent, SCRIPT.name))
    add("reports/<name>/", lambda name: report(out, name))
    web_ui.app.after_request(with_script)


def report(out: Path, name: str) -> Response:
    """Answer the report of the run in the directory `name` of `out`, and of nothing else."""
    if not any(path.parent.name == name for path in out.glob(f"*/{SUMMARY}")):
        abort(404)
    return send_from_directory(out.resolve() / name, PAGE)
