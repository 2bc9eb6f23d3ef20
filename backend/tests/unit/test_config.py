"""Settings: checked at once, frozen, of known precedence, and silent about secrets."""

from __future__ import annotations

import inspect
import traceback
from pathlib import Path

import pytest
from pydantic import ValidationError

from redis_core.client import connect
from redis_core.config import Settings, load_settings, reads_production_file
from redis_core.doctor import _settings
from redis_core.errors import ConfigError

SECRET = "S3CR3TS3CR3T"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "backend").mkdir()


def write(name: str, text: str) -> None:
    Path("backend", name).write_text(text, "utf-8")


def test_defaults_of_the_manual() -> None:
    settings = load_settings()
    assert settings.redis_default_ttl == 3600
    assert settings.redis_session_ttl == 86400
    assert settings.redis_max_connections == 50
    assert settings.mock_redis is False
    assert settings.store_address() is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("REDIS_DEFAULT_TTL", "soon"),
        ("REDIS_DEFAULT_TTL", "0"),
        ("REDIS_DEFAULT_TTL", "1.5"),
        ("REDIS_SESSION_TTL", "-1"),
        ("REDIS_MAX_CONNECTIONS", "0"),
        ("REDIS_MAX_CONNECTIONS", "many"),
        ("REDIS_CONNECT_TIMEOUT", "0"),
        ("REDIS_CONNECT_TIMEOUT", "inf"),
        ("REDIS_COMMAND_TIMEOUT", "nan"),
        ("REDIS_COMMAND_TIMEOUT", "-1"),
        ("REDIS_MAX_IN_FLIGHT", "0"),
        ("REDIS_MAX_REPLY_BYTES", "1"),
        ("REDIS_CLIENT_NAME", "has space"),
        ("REDIS_CLIENT_NAME", "new\nline"),
        ("REDIS_TLS_VERIFY", "perhaps"),
        ("MOCK_REDIS", "sometimes"),
        ("MOCK_REDIS_MAX_BYTES", "10"),
        ("RAPTORFLOW_ENV", "staging"),
        ("RAPTORFLOW_PORT", "99999"),
        ("GATEWAY_PORT", "x"),
        ("REDIS_URL", "localhost:6379"),
        ("REDIS_URL", "redis://h:port"),
        ("UPSTASH_REDIS_URL", "http://example.com"),
        ("UPSTASH_REDIS_URL", "x.upstash.io"),
    ],
)
def test_a_bad_value_names_variable_value_and_remedy(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert caught.value.variable == variable
    assert caught.value.value == value
    assert len(caught.value.remedy) > 10


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("REDIS_URL", f"redis://u:{SECRET}@h:port"),
        ("REDIS_URL", f"u:{SECRET}@h"),
        ("UPSTASH_REDIS_URL", f"http://u:{SECRET}@example.com"),
        ("UPSTASH_REDIS_URL", f"https://h/?_token={SECRET}&x=1"),
    ],
)
def test_no_error_or_traceback_shows_a_secret(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    try:
        shown = str(load_settings().store_address())
    except ConfigError as error:
        shown = str(error) + "".join(traceback.format_exception(error))
    assert SECRET not in shown


def test_secrets_do_not_show_in_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTASH_REDIS_URL", "https://x.upstash.io")
    for variable in ("UPSTASH_REDIS_TOKEN", "GATEWAY_TOKEN", "GATEWAY_READONLY_TOKEN"):
        monkeypatch.setenv(variable, SECRET)
    settings = load_settings()
    assert settings.upstash_redis_token is not None
    assert settings.upstash_redis_token.reveal() == SECRET
    for shown in (repr(settings), str(settings), str(settings.model_dump())):
        assert SECRET not in shown


def test_a_password_in_a_url_does_not_show_in_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", f"redis://u:{SECRET}@h:1")
    settings = load_settings()
    address = settings.store_address()
    assert address is not None
    assert address.password is not None
    assert address.password.reveal() == SECRET
    for shown in (repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert SECRET not in shown
    assert settings.model_copy().redis_url == f"redis://u:{SECRET}@h:1"


def test_upstash_needs_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTASH_REDIS_URL", "https://x.upstash.io")
    with pytest.raises(ConfigError, match=r"UPSTASH_REDIS_TOKEN is not set.*x\.upstash\.io"):
        load_settings()


def test_names_of_the_sdk_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTASH_REDIS_REST_URL", "https://x.upstash.io")
    monkeypatch.setenv("UPSTASH_REDIS_REST_TOKEN", "t")
    address = load_settings().store_address()
    assert address is not None
    assert address.is_rest


def test_upstash_url_goes_before_redis_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTASH_REDIS_URL", "rediss://a:1")
    monkeypatch.setenv("REDIS_URL", "redis://b:1")
    assert str(load_settings().store_address()) == "rediss://a:1"


def test_production_must_name_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAPTORFLOW_ENV", "Production ")
    with pytest.raises(ConfigError, match="UPSTASH_REDIS_URL is not set"):
        load_settings()
    monkeypatch.setenv("REDIS_URL", "redis://h")
    assert load_settings().raptorflow_env == "production"


def test_empty_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "")
    monkeypatch.setenv("REDIS_DEFAULT_TTL", "")
    settings = load_settings()
    assert settings.store_address() is None
    assert settings.redis_default_ttl == 3600


def test_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAPTORFLOW_ENV")
    write(
        ".env", "REDIS_DEFAULT_TTL=1\nREDIS_SESSION_TTL=1\nREDIS_MAX_CONNECTIONS=1\nREDIS_MAX_IN_FLIGHT=1\n"
    )
    write(".env.production", "REDIS_SESSION_TTL=2\nREDIS_MAX_CONNECTIONS=2\nREDIS_MAX_IN_FLIGHT=2\n")
    monkeypatch.setenv("REDIS_MAX_CONNECTIONS", "3")
    monkeypatch.setenv("REDIS_MAX_IN_FLIGHT", "3")
    settings = load_settings(redis_max_in_flight=4)
    assert settings.redis_default_ttl == 1
    assert settings.redis_session_ttl == 2
    assert settings.redis_max_connections == 3
    assert settings.redis_max_in_flight == 4


@pytest.mark.parametrize(
    ("environment", "read"), [("development", False), ("test", False), ("production", True), (None, True)]
)
def test_production_file_is_left_out_where_it_does_not_belong(
    environment: str | None, read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(".env.production", "REDIS_DEFAULT_TTL=9\nREDIS_URL=redis://production\n")
    monkeypatch.delenv("RAPTORFLOW_ENV")
    if environment is not None:
        monkeypatch.setenv("RAPTORFLOW_ENV", environment)
    assert (load_settings().redis_default_ttl == 9) is read


def test_file_that_is_not_utf8(tmp_path: Path) -> None:
    Path("backend", ".env").write_bytes(b"REDIS_URL=\xff\xfe\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_settings()


def test_unknown_variables_are_somebody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    write(".env", "SOMETHING_ELSE=1\nREDIS_DEFAULT_TTL=7\n")
    monkeypatch.setenv("REDIS_SOMETHING", "1")
    assert load_settings().redis_default_ttl == 7


def test_settings_are_frozen() -> None:
    settings = load_settings()
    with pytest.raises(ValidationError):
        settings.redis_default_ttl = 5


def test_state_folder_is_under_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_STATE_HOME", "/var/x")
    assert load_settings().raptorflow_state_dir == Path("/var/x/raptorflow")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert load_settings().raptorflow_state_dir == Path.home() / ".local/state/raptorflow"
    monkeypatch.setattr("sys.platform", "darwin")
    assert load_settings().raptorflow_state_dir.parts[-2:] == ("Application Support", "raptorflow")


def test_every_setting_is_documented() -> None:
    source = Path(inspect.getfile(Settings)).read_text("utf-8")
    for name in Settings.model_fields:
        after = source.split(f"    {name}: ", 1)[1]
        assert after.split("\n\n", 1)[0].count('"""') >= 1, name


def test_memory_is_refused_in_production_unless_it_is_asked_for_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAPTORFLOW_ENV", "production")
    monkeypatch.setenv("MOCK_REDIS", "true")
    with pytest.raises(ConfigError, match="MOCK_REDIS_IN_PRODUCTION") as refused:
        load_settings()
    assert refused.value.variable == "MOCK_REDIS"
    monkeypatch.setenv("MOCK_REDIS_IN_PRODUCTION", "true")
    assert load_settings().mock_redis
    monkeypatch.delenv("MOCK_REDIS_IN_PRODUCTION")
    monkeypatch.setenv("RAPTORFLOW_ENV", "development")
    assert load_settings().mock_redis
    with pytest.raises(ConfigError, match="MOCK_REDIS_IN_PRODUCTION"):
        load_settings(raptorflow_env="production", mock_redis=True)
    assert load_settings(
        raptorflow_env="production", mock_redis=True, mock_redis_in_production=True
    ).mock_redis


async def test_settings_made_by_hand_do_not_open_memory_in_production_either() -> None:
    made = Settings(_env_file=None, raptorflow_env="production", mock_redis=True)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="MOCK_REDIS_IN_PRODUCTION"):
        await connect(made)


def test_a_file_of_production_that_another_environment_reads_is_warned_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAPTORFLOW_ENV", raising=False)
    write(".env.production", "REDIS_URL=redis://store.example:6379\n")
    assert reads_production_file()
    found = _settings(load_settings())
    assert (found.status, "development, but backend/.env.production is read" in found.found) == ("warn", True)
    write(".env.production", "RAPTORFLOW_ENV=production\nREDIS_URL=redis://store.example:6379\n")
    assert _settings(load_settings()).status == "pass"
    monkeypatch.setenv("RAPTORFLOW_ENV", "development")
    assert not reads_production_file()
