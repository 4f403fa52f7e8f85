"""The routes that need a history."""

from __future__ import annotations

import httpx
import pytest

from conftest import Server

ID = "019aa8e1c3f57a39b183f64ed287b956"


# --- without a history ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/outcomes"), ("GET", f"/predictions/{ID}"), ("GET", "/outcomes/summary"), ("GET", "/predictions/x/y")],
)
def test_without_a_database_the_answer_says_which_setting_is_missing(server: Server, method: str, path: str) -> None:
    answer = httpx.request(method, f"{server.url}{path}")
    assert answer.status_code == 404
    assert "DEFECTS_DATABASE_URL" in answer.json()["error"]
    assert not {"/outcomes", "/outcomes/summary"} & httpx.get(f"{server.url}/docs.json").json()["paths"].keys()


def test_an_id_is_in_no_metric(server: Server) -> None:
    httpx.get(f"{server.url}/predictions/{ID}")
    assert ID not in httpx.get(f"{server.url}/metrics").text
