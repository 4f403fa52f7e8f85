"""The page at `/`: what the service is, links, and every route to try out, by Swagger UI from BentoML's package.

The SDK itself is not imported for it: that takes longer than a whole start.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from html import escape
from importlib.util import find_spec
from pathlib import Path

from defects.serving.model import ServedModel

HTML = b"text/html; charset=utf-8"
FOLDER = "/static_content"
SCRIPT = "docs.js"
ASSETS = {  # content types of the files that the page needs
    "swagger-ui.css": b"text/css; charset=utf-8",
    "swagger-ui-bundle.js": b"text/javascript; charset=utf-8",
    SCRIPT: b"text/javascript; charset=utf-8",
}
CACHED = (b"cache-control", b"max-age=3600")
POLICY = (
    b"content-security-policy",
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
)
# The model's card: a page that comes with the model, so that nothing in it is run.
CARD_POLICY = (
    b"content-security-policy",
    b"default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
)
LINKS = {
    "docs.json": "OpenAPI document",
    "card": "Model card",
    "model": "Model as JSON",
    "readyz?verbose": "Readiness",
    "metrics": "Metrics",
}

# The document's own server is ".", which is right wherever it is mounted, and says nothing to a reader.
_SCRIPT = b"""\
fetch("docs.json").then((answer) => answer.json()).then((spec) => {
  const url = new URL(".", location.href).href.replace(/\\/$/, "");
  SwaggerUIBundle({
    spec: {...spec, servers: [{url, description: "this server"}]},
    dom_id: "#routes",
    deepLinking: true,
    validatorUrl: null,
  });
}).catch((problem) => {
  document.getElementById("routes").textContent = `docs.json can't be shown: ${problem}`;
});
"""

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: {name}</title>
<meta name="description" content="{summary}">
<link rel="icon" href="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath \
d='M2 5l6-3 6 3v6l-6 3-6-3z' fill='%23c8a06a'/%3E%3Cpath d='M2 5l6 3 6-3M8 8v6' fill='none' stroke='%23664a20'/%3E\
%3C/svg%3E">
<link rel="stylesheet" href="{folder}/swagger-ui.css">
<style>
body {{ margin: 0; font-family: sans-serif; color: #3b4151; background: #fafafa; }}
header {{ max-width: 1420px; margin: 0 auto; padding: 30px 20px 0; box-sizing: border-box; line-height: 1.5; }}
header, li {{ overflow-wrap: anywhere; }}
h1 {{ margin: 0; font-size: 32px; }}
nav a {{ margin-right: 1.5em; }}
.swagger-ui .information-container {{ display: none; }}
</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p>{summary} This server answers with the model <b>{name}</b>, version <b>{version}</b>.</p>
<ul>
{classes}
</ul>
<nav>{links}</nav>
</header>
<div id="routes"><noscript><p>The list of routes needs JavaScript. <a href="docs.json">docs.json</a> has the same.</p>\
</noscript></div>
<script src="{folder}/swagger-ui-bundle.js"></script>
<script src="{folder}/{script}"></script>
</body>
</html>
"""


def html(model: ServedModel) -> bytes:
    """Make the page."""
    classes = [
        f"<li><code>{escape(c.name)}</code>{escape(': ' + c.description if c.description else '')}</li>"
        for c in model.schema.classes
    ]
    links = {link: text for link, text in LINKS.items() if link != "card" or model.card_page is not None}
    return _PAGE.format(
        title=escape(model.schema.heading),
        name=escape(model.name),
        version=escape(model.version),
        summary=escape(model.schema.purpose),
        classes="\n".join(classes),
        links="".join(f'<a href="{link}">{text}</a>' for link, text in links.items()),
        folder=FOLDER.lstrip("/"),
        script=SCRIPT,
    ).encode()


def asset(name: str) -> Callable[[], tuple[bytes, bytes]]:
    """Return what reads a file that the page needs, plain and packed by gzip."""

    def read() -> tuple[bytes, bytes]:
        content = _SCRIPT if name == SCRIPT else (_swagger_ui() / name).read_bytes()
        return content, gzip.compress(content, mtime=0)

    return read


def _swagger_ui() -> Path:
    """Find the folder with Swagger UI; raises `FileNotFoundError` where BentoML is not installed."""
    package = find_spec("bentoml")
    if package is None or package.origin is None:
        raise FileNotFoundError("BentoML is not installed, which has Swagger UI")
    return Path(package.origin).parent / "_internal" / "server" / "static_content"
