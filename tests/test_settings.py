"""Settings are typed, and a wrong one ends in one clear line."""

from __future__ import annotations

import os
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


class WithLinks(Settings):
    """Settings with names that a Service's links have too."""

    service_port: int = Field(1, alias="DEFECTS_X_SERVICE_PORT", description="A port.")
    url: str | None = Field(None, alias="DEFECTS_URL_PORT", description="Text, which a link's value is too.")


@pytest.mark.parametrize("link", LINKS["PORT"])
def test_a_link_with_the_name_of_a_setting_that_is_a_number_counts_as_not_set(link: str, tmp_path: Path) -> None:
    """A Service called defects-health gives every pod of its namespace a DEFECTS_HEALTH_PORT that is a URL."""
    assert WithLinks.from_environment({"DEFECTS_HEALTH_PORT": link}).health_port is None
    file = tmp_path / "port"
    file.write_text("8081\n")
    both = {"DEFECTS_HEALTH_PORT": link, "DEFECTS_HEALTH_PORT_FILE": str(file)}
    assert WithLinks.from_environment(both).health_port == 8081


def test_what_can_be_meant_as_the_setting_is_taken_as_it() -> None:
    given = {"DEFECTS_HEALTH_PORT": "8081", "DEFECTS_X_SERVICE_PORT": "6379", "DEFECTS_URL_PORT": "tcp://10.0.0.1:80"}
    settings = WithLinks.from_environment(given)
    assert (settings.health_port, settings.service_port, settings.url) == (8081, 6379, "tcp://10.0.0.1:80")
    for wrong in ("tcp://10.0.0.1", "http://10.0.0.1:80", "many", "0"):
        with pytest.raises(BadSetting, match=r"^DEFECTS_HEALTH_PORT: expected "):
            WithLinks.from_environment({"DEFECTS_HEALTH_PORT": wrong})


SECRET = "postgresql://user:pa55w0rd@db/history"  # noqa: S105 - of nothing


class WithSecrets(Settings):
    """Settings with secrets of which one is told apart by a validator that quotes it, and one has a default."""

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
    assert set(table(Settings).splitlines()) - set(shown.splitlines()) == {
        line for line in table(Settings).splitlines() if "DEFECTS_DATABASE_URL` " in line
    }


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


@pytest.mark.parametrize("name", [str(field.alias) for field in Settings.model_fields.values()])
def test_a_value_that_is_not_utf_8_is_refused_by_name(name: str) -> None:
    secret = name in ("DEFECTS_DATABASE_URL", "DEFECTS_CACHE_URL", "MODEL_URI")
    got = "" if secret else r", got '/x\\udcff'"
    with pytest.raises(BadSetting, match=rf"^{name}: expected text in UTF-8{got}$"):
        Settings.from_environment({name: "/x\udcff"})


def test_a_secret_that_is_not_utf_8_is_not_shown() -> None:
    with pytest.raises(BadSetting, match=r"^DEFECTS_DATABASE_URL: expected text in UTF-8$"):
        WithSecrets.from_environment({"DEFECTS_DATABASE_URL": "pa55w0rd\udcff"})


def test_a_long_value_is_shown_shortened() -> None:
    long = "x" * 1_000_000
    for environment in (
        {"DEFECTS_REVISION": long},
        {"DEFECTS_LOG_LEVEL": long},
        {"MODEL_DIR": f"/{long}"},
        {"DEFECTS_REVISION_FILE": f"/{long}"},
        {f"DEFECTS_{long}": "x"},
        {"DEFECTS_MAX_BATCH_ROWS": "9" * 1_000_000},
    ):
        with pytest.raises(BadSetting) as caught:
            Settings.from_environment(environment)
        assert len(str(caught.value)) < 800
        assert next(iter(environment))[:20] in str(caught.value)


def test_a_message_is_one_line_whatever_the_value() -> None:
    for value in ("a\nb", "\x1b[2J", "\x85", "\u2028"):
        for environment in ({"DEFECTS_REVISION": value}, {f"DEFECTS_{value}": ""}, {"DEFECTS_REVISION_FILE": value}):
            with pytest.raises(BadSetting) as caught:
                Settings.from_environment(environment)
            assert str(caught.value).isprintable()


@pytest.fixture
def strange(tmp_path: Path) -> dict[str, Path]:
    """Files that hold no setting's value."""
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as sparse:
        sparse.truncate(300_000_000)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    (tmp_path / "loop").symlink_to("loop")
    return {"zero": Path("/dev/zero")} | {name: tmp_path / name for name in ("pipe", "large", "bytes", "loop", "")}


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("pipe", "is a named pipe; expected a regular file"),
        ("zero", "is a device; expected a regular file"),
        ("large", "has 300,000,000 bytes; expected at most 65,536"),
        ("bytes", "it is not UTF-8"),
        ("loop", "Too many levels of symbolic links"),
        ("", "is a directory; expected a regular file"),
    ],
)
def test_a_file_without_a_value_is_refused(strange: dict[str, Path], name: str, problem: str) -> None:
    file = str(strange[name])
    with pytest.raises(BadSetting) as caught:
        Settings.from_environment({"DEFECTS_REVISION_FILE": file})
    assert str(caught.value) == f"DEFECTS_REVISION_FILE: can't read {file}: {problem}"
    with pytest.raises(BadSetting) as caught:
        WithSecrets.from_environment({"DEFECTS_DATABASE_URL_FILE": file})
    assert str(caught.value) == f"DEFECTS_DATABASE_URL_FILE: can't read the file that it names: {problem}"


def test_a_directory_that_can_not_be_looked_up_is_a_wrong_setting(strange: dict[str, Path]) -> None:
    for path, problem in {
        str(strange["loop"]): "Too many levels of symbolic links",
        "/" + "x" * 300: "File name too long",
        "/x" * 3000: "File name too long",
    }.items():
        with pytest.raises(BadSetting, match=rf"^MODEL_DIR: expected a path that can be looked up \({problem}\)"):
            Settings.from_environment({"MODEL_DIR": path})


def test_a_name_in_no_encoding_ends_in_one_line_too(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="78"):
        BadSetting("DEFECTS_\udcff: unknown setting").exit()
    assert capfd.readouterr().err == "defects: DEFECTS_\\udcff: unknown setting\n"


def test_the_documentation_shows_every_setting() -> None:
    page = (Path(__file__).parent.parent / "docs" / "settings.md").read_text("utf-8")
    assert table() in page, "put the output of `python -m defects.settings` into docs/settings.md"
