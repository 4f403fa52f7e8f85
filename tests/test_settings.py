"""Settings are typed, and a wrong one ends in one clear line."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field, SecretStr, field_validator

from conftest import run
from defects.settings import PATTERNS_IN_WORDS, BadSetting, Settings, table

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
        (
            {"DEFECTS_LOG_LEVEL": "LOUD"},
            "DEFECTS_LOG_LEVEL: expected 'debug', .* or 'error', got 'LOUD'",
        ),
        ({"DEFECTS_\udcff": "x"}, "DEFECTS_\udcff: unknown setting"),
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


PATTERNED = [
    (name, part["pattern"])
    for name, described in Settings.model_json_schema()["properties"].items()
    for part in [described, *described.get("anyOf", [])]
    if "pattern" in part
]


@pytest.mark.parametrize(("name", "pattern"), PATTERNED)
def test_what_a_text_has_to_look_like_is_said_in_words(name: str, pattern: str) -> None:
    with pytest.raises(BadSetting) as caught:
        Settings.from_environment({name: "a b/c"})
    assert str(caught.value) == f"{name}: expected {PATTERNS_IN_WORDS[pattern]}, got 'a b/c'"
    assert not set("^$[]{}*+\\") & set(str(caught.value))


def test_every_setting_with_a_pattern_is_looked_at() -> None:
    assert len(PATTERNED) == 6


LINKS = {
    "SERVICE_HOST": ("10.0.0.11", "fd00::11"),
    "SERVICE_PORT": ("6379",),
    "SERVICE_PORT_HTTP": ("80",),
    "PORT": ("tcp://10.0.0.11:6379", "udp://10.0.0.11:53", "tcp://[fd00::11]:80"),
    "PORT_80_TCP": ("tcp://10.0.0.11:80", "tcp://[fd00::11]:80"),
    "PORT_80_TCP_PROTO": ("tcp",),
    "PORT_80_TCP_PORT": ("80",),
    "PORT_80_TCP_ADDR": ("10.0.0.11", "fd00::11"),
}


@pytest.mark.parametrize("service", ["DEFECTS", "DEFECTS_DB"])
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in LINKS.items() for value in values])
def test_what_kubernetes_adds_for_a_service_is_no_setting(service: str, name: str, value: str) -> None:
    assert Settings.from_environment({f"{service}_{name}": value}) == Settings.from_environment({})


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("DEFECTS_PORT", "8080", r"did you mean PORT\?"),
        ("DEFECTS_HOST", "127.0.0.1", r"did you mean HOST\?"),
        ("DEFECTS_MODEL_DIR", "/m", r"did you mean MODEL_DIR\?"),
        ("DEFECTS_DB_PORT", "5432", "expected one of|did you mean"),
        ("DEFECTS_SERVICE_HOST", "somewhere", "expected one of|did you mean"),
        ("DEFECTS_SERVICE_PORT", "http", "expected one of|did you mean"),
        ("DEFECTS_DB_PORT_80_TCP_PROTO", "http", "expected one of|did you mean"),
    ],
)
def test_what_only_has_the_name_of_a_service_link_is_refused(name: str, value: str, advice: str) -> None:
    with pytest.raises(BadSetting, match=f"^{name}: unknown setting; ({advice})"):
        Settings.from_environment({name: value})


SECRET = "postgresql://user:pa55w0rd@db/history"  # noqa: S105 - of nothing


class WithSecrets(Settings):
    """Settings with secrets, which the ones of today have none of."""

    database_url: SecretStr | None = Field(None, alias="DEFECTS_DATABASE_URL", description="Where history goes.")
    token: Annotated[SecretStr, Field(min_length=60)] | None = Field(
        SecretStr("s3cret"), alias="DEFECTS_TOKEN", description="At least 60 characters."
    )

    @field_validator("database_url")
    @classmethod
    def _is_known(cls, value: SecretStr | None) -> SecretStr | None:
        if value and value.get_secret_value().startswith("mysql"):
            raise ValueError(f"unknown scheme in {value.get_secret_value()}")
        return value


def test_a_secret_can_be_read_and_is_shown_nowhere() -> None:
    settings = WithSecrets.from_environment({"DEFECTS_DATABASE_URL": SECRET})
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == SECRET
    assert "pa55w0rd" not in f"{settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()}"
    shown = table(WithSecrets)
    assert "| `DEFECTS_DATABASE_URL` |  | Where history goes. |" in shown
    assert "s3cret" not in shown
    assert table(Settings) in shown


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"DEFECTS_DATABASE_URL": "mysql://pa55w0rd@db"}, "DEFECTS_DATABASE_URL: .*secret.*Where history goes"),
        ({"DEFECTS_TOKEN": "pa55w0rd"}, "DEFECTS_TOKEN: .*secret.*At least 60 characters"),
        ({"DEFECTS_DATABASE_URL_FILE": SECRET}, "DEFECTS_DATABASE_URL_FILE: can't read the file that it names"),
        ({"DEFECTS_DATABASE_URL_FILE": "pa55w0rd\0"}, "DEFECTS_DATABASE_URL_FILE: can't read the file that it names"),
        ({"DEFECTS_DATABASE_URL_FILE": "pa55w0rd", "DEFECTS_DATABASE_URL": SECRET}, "DEFECTS_DATABASE_URL: set both"),
        # A name that is wrong by a letter has a secret's value too.
        ({"DEFECTS_DATABSE_URL": SECRET}, r"DEFECTS_DATABSE_URL: unknown setting; did you mean DEFECTS_DATABASE_URL\?"),
        ({"DEFECTS_DATABSE_URL_FILE": SECRET}, "DEFECTS_DATABSE_URL_FILE: unknown setting"),
        ({"DEFECTS_DATABASE_PORT": SECRET}, "DEFECTS_DATABASE_PORT: unknown setting"),
    ],
)
def test_no_error_shows_a_secret(environment: dict[str, str], message: str) -> None:
    with pytest.raises(BadSetting, match=f"^{message}") as caught:
        WithSecrets.from_environment(environment)
    assert "pa55w0rd" not in "".join(traceback.format_exception(caught.value))


def test_a_secret_is_not_shown_where_another_setting_is_wrong() -> None:
    with pytest.raises(BadSetting, match=r"^DEFECTS_MAX_BATCH_ROWS: .*got 'x'$") as caught:
        WithSecrets.from_environment({"DEFECTS_DATABASE_URL": SECRET, "DEFECTS_MAX_BATCH_ROWS": "x"})
    assert "pa55w0rd" not in "".join(traceback.format_exception(caught.value))


def test_an_unknown_setting_does_not_show_its_value_when_the_process_ends(tmp_path: Path) -> None:
    done = run(tmp_path, "python", "-m", "defects.serve", DEFECTS_DATABSE_URL=SECRET)
    assert done.returncode == 78
    assert "DEFECTS_DATABSE_URL: unknown setting" in done.stderr
    assert "pa55w0rd" not in done.stdout + done.stderr


def test_a_setting_can_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "revision"
    file.write_text("from-file\n")
    assert Settings.from_environment({"DEFECTS_REVISION_FILE": str(file)}).revision == "from-file"


def test_a_name_in_no_encoding_ends_in_one_line_too(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="78"):
        BadSetting("DEFECTS_\udcff: unknown setting").exit()
    assert capfd.readouterr().err == "defects: DEFECTS_\\udcff: unknown setting\n"


def test_the_documentation_shows_every_setting() -> None:
    page = (Path(__file__).parent.parent / "docs" / "settings.md").read_text("utf-8")
    assert table() in page, "put the output of `python -m defects.settings` into docs/settings.md"
