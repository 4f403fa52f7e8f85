"""Settings are typed, and a wrong one ends in one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest

from defects.settings import BadSetting, Settings, table

DIGEST = "sha256:" + "0" * 64


def test_defaults_and_values() -> None:
    assert Settings.from_environment({}).model_dir is None
    settings = Settings.from_environment(
        {
            "MODEL_DIR": "/m",
            "DEFECTS_MAX_BODY_BYTES": "10",
            "DEFECTS_BUILD": "1",
            "DEFECTS_MODEL_DIGEST": DIGEST,
            "X": "y",
        }
    )
    assert (settings.model_dir, settings.max_body_bytes, settings.build) == (Path("/m"), 10, True)
    assert settings.model_digest == DIGEST


def test_empty_means_unset() -> None:
    assert Settings.from_environment({"MODEL_DIR": "", "DEFECTS_MAX_BODY_BYTES": ""}) == Settings.from_environment({})


def test_revision_comes_from_knative_then_from_us() -> None:
    assert Settings.from_environment({}).revision == "local"
    assert Settings.from_environment({"DEFECTS_REVISION": "r1"}).revision == "r1"
    assert Settings.from_environment({"DEFECTS_REVISION": "r1", "K_REVISION": "k2"}).revision == "k2"


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings.from_environment({}).build = True  # type: ignore[misc]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"DEFECTS_MAX_BODY_BYTES": "many"}, "DEFECTS_MAX_BODY_BYTES: expected a valid integer.*got 'many'"),
        ({"DEFECTS_MAX_BODY_BYTES": "0"}, "DEFECTS_MAX_BODY_BYTES: expected greater than or equal to 1, got '0'"),
        ({"DEFECTS_MODEL_DIGEST": "abc"}, "DEFECTS_MODEL_DIGEST: .*got 'abc'"),
        ({"DEFECTS_MODEL": "a b"}, "DEFECTS_MODEL: .*got 'a b'"),
        ({"DEFECTS_BUILD": "perhaps"}, "DEFECTS_BUILD: .*boolean"),
        ({"DEFECTS_MODL": "x"}, r"DEFECTS_MODL: unknown setting; did you mean DEFECTS_MODEL\?"),
        ({"DEFECTS_ZZZZZZ": "x"}, "DEFECTS_ZZZZZZ: unknown setting; expected one of MODEL_DIR, "),
        ({"DEFECTS_REVISION_FILE": "/nowhere"}, "DEFECTS_REVISION_FILE: can't read /nowhere"),
        ({"DEFECTS_REVISION_FILE": "/x", "DEFECTS_REVISION": "y"}, "DEFECTS_REVISION: set both directly and by"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(environment: dict[str, str], message: str) -> None:
    with pytest.raises(BadSetting, match=f"^{message}") as caught:
        Settings.from_environment(environment)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP", "PORT_80_TCP_ADDR"]
)
def test_what_kubernetes_adds_for_a_service_is_no_setting(name: str) -> None:
    assert Settings.from_environment({f"DEFECTS_DB_{name}": "x"}) == Settings.from_environment({})


def test_a_setting_can_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "revision"
    file.write_text("from-file\n")
    assert Settings.from_environment({"DEFECTS_REVISION_FILE": str(file)}).revision == "from-file"


def test_the_documentation_shows_every_setting() -> None:
    page = (Path(__file__).parent.parent / "docs" / "settings.md").read_text("utf-8")
    assert table() in page, "put the output of `python -m defects.settings` into docs/settings.md"
