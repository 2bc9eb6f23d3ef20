"""Settings: read once from the environment and the `.env` files, validated, frozen, passed in.

No other module reads the environment. In order of precedence: arguments, the environment, `backend/.env.production`,
`backend/.env`, defaults. `.env.production` is left out where `RAPTORFLOW_ENV` says `development` or `test`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

from dotenv import dotenv_values
from pydantic import AliasChoices, Field, TypeAdapter, ValidationError, field_serializer, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from redis_core.address import StoreAddress, parse_address, redact_url
from redis_core.errors import ConfigError
from redis_core.secret import Secret

__all__ = [
    "Environment",
    "Settings",
    "env_file_stamp",
    "load_settings",
    "mock_wanted",
    "plain_environment",
    "reads_production_file",
]

Environment = Literal["development", "test", "production"]

_BACKEND: Final = Path("backend")
_URLS: Final = frozenset({"UPSTASH_REDIS_URL", "REDIS_URL"})
_SECRETS: Final = frozenset(
    {
        "UPSTASH_REDIS_TOKEN",
        "REDIS_PASSWORD",
        "GATEWAY_TOKEN",
        "GATEWAY_READONLY_TOKEN",
        "SESSION_PEPPERS",
        "CACHE_KEYS",
        "ADMIN_TOKENS",
        "REALTIME_KEYS",
    }
)
_PLAIN: Final = frozenset("PATH HOME LANG LANGUAGE TZ TMPDIR TEMP TMP VIRTUAL_ENV SYSTEMROOT".split())
_PLAIN_BEGINNINGS: Final = ("LC_", "PYTHON")


def _state_folder() -> Path:
    """Where this user's programs keep state: XDG's folder, or macOS' equivalent."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "raptorflow"
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "state") / "raptorflow"


class Settings(BaseSettings):
    """Everything that can be set. Field names are the variables' names in lower case."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    raptorflow_env: Environment = "development"
    """Where this process runs. In `production` a store must be set."""

    upstash_redis_url: str | None = Field(
        default=None, validation_alias=AliasChoices("upstash_redis_url", "upstash_redis_rest_url")
    )
    """The primary store: `https://...` for Upstash REST, or any scheme of `redis_url`."""
    upstash_redis_token: Secret | None = Field(
        default=None, validation_alias=AliasChoices("upstash_redis_token", "upstash_redis_rest_token")
    )
    """The token of Upstash's REST interface."""
    redis_url: str | None = None
    """The primary store over TCP: `redis://`, `rediss://`, `unix://`, `redis+cluster://`, `redis+sentinel://`."""
    redis_password: Secret | None = None
    """The store's password over TCP, instead of the one in its URL: here it can be a reference, and be replaced in use."""
    gce_metadata_host: str = "metadata.google.internal"
    """Where an instance of Google Cloud asks for access tokens, for secrets of the form `sm://project/secret/version`."""
    secret_manager_url: str = "https://secretmanager.googleapis.com"  # noqa: S105 - an address
    """Google Secret Manager's address."""
    mock_redis: bool = False
    """Serve everything from this process' memory. In `production` an error unless `mock_redis_in_production` is set, too."""
    mock_redis_in_production: bool = False
    """Let a process of `production` start on memory, where nothing lasts and no process sees another's data."""

    redis_default_ttl: int = Field(default=3_600, ge=1)
    """Seconds a cached value lives unless its region says otherwise."""
    redis_session_ttl: int = Field(default=86_400, ge=1)
    """Seconds a session lives after it was last used."""
    session_absolute_ttl: int = Field(default=30 * 86_400, ge=1)
    """Seconds a session lives at most, however much it is used."""
    session_peppers: Secret | None = None
    """Keys of the session tokens' MACs, `id:secret,id:secret`; the first makes new tokens, the others are still accepted.

    An id is 1 to 16 of `a-z 0-9`, a secret at least 32 characters. Must be set in production. To rotate, put a new one in
    front and take the old one away when `session_absolute_ttl` has passed. Removing one ends its sessions.
    """
    session_max_per_user: int = Field(default=0, ge=0, le=1_000)
    """Most sessions one user may have in one workspace; 0 is no limit."""
    session_at_max: Literal["evict-oldest", "refuse"] = "evict-oldest"
    """What a login does when the user has as many: end the one used longest ago, or fail."""
    session_cookie_insecure_localhost: bool = False
    """Send the session cookie over plain http, for development on localhost. An error in production."""
    cache_memory_entries: int = Field(default=100_000, ge=1)
    """Most cached values that a process keeps in its memory, over all workspaces."""
    cache_memory_bytes: int = Field(default=128 * 1024 * 1024, ge=1024)
    """Most bytes of them, estimated; see docs/cache.md."""
    cache_keys: Secret | None = None
    """Keys of the cache regions that encrypt, `id:hex,id:hex`; the first encrypts, the others still open.

    An id is 0 to 255, a key 32 bytes as 64 hex digits. Taking one away makes misses of what it encrypted.
    """
    redis_max_connections: int = Field(default=50, ge=1, le=10_000)
    """Most HTTP requests to Upstash at once, and most connections for blocking commands over TCP."""

    redis_failover: bool = True
    """Go on in memory while the store is away, and keep what must not be lost in the journal."""
    journal_path: Path | None = None
    """Folder of the journal, on a disk that outlasts the process; `journal` in `raptorflow_state_dir` unless set."""
    journal_max_bytes: int = Field(default=256 * 1024 * 1024, ge=64 * 1024)
    """Most bytes the journal holds; what would exceed that is refused as `JournalFull`."""
    journal_max_age: float = Field(default=7 * 86_400.0, ge=1)
    """Seconds a record may wait in the journal; while an older one waits, nothing is accepted."""

    redis_connect_timeout: float = Field(default=0.5, gt=0, le=60)
    """Seconds to open a connection, handshake included."""
    redis_command_timeout: float = Field(default=0.8, gt=0, le=600)
    """Seconds until a command that has not been answered is given up, unless the call says otherwise."""
    redis_max_in_flight: int = Field(default=100_000, ge=1)
    """Most commands sent and not yet answered; one more is refused as `StoreOverloaded`."""
    redis_max_reply_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)
    """Largest reply accepted, in bytes."""
    redis_client_name: str = Field(default="raptorflow", pattern=r"^[!-~]{1,64}$")
    """What `CLIENT LIST` shows on the server."""
    redis_tls_ca: Path | None = None
    """File of the certificate authority to trust, instead of the system's."""
    redis_tls_cert: Path | None = None
    """File of our certificate, for mutual TLS."""
    redis_tls_key: Path | None = None
    """File of our certificate's key."""
    redis_tls_verify: bool = True
    """Whether the server's certificate and name are verified. Off only for a test."""

    queue_lease: float = Field(default=15.0, ge=1, le=3_600)
    """Seconds without a sign of life after which a worker is taken for dead and its jobs run elsewhere."""
    queue_max_depth: int = Field(default=100_000, ge=1)
    """Unfinished jobs a workspace may have in one queue; one more is refused as `QueueFull`."""
    quota_plan: str = Field(default="default", pattern=r"^[a-z0-9_-]{1,32}$")
    """The plan of `quota_config.py` that a workspace has of which `Quotas.plan_of` says nothing; `default` has no limit."""
    queue_shards: dict[str, int] = Field(default={})
    """Shards of queues that are too hot for one slot of a cluster, as JSON: `{"agents": 4}`. Change it only while they are empty."""

    realtime_keys: Secret | None = None
    """Keys of the realtime tokens' MACs, `id:secret,id:secret`; the first makes new tokens, the others are still accepted."""
    realtime_token_seconds: int = Field(default=600, ge=10, le=3_600)
    """Seconds a realtime token lives that an app session is exchanged for."""
    realtime_heartbeat: int = Field(default=25, ge=1, le=60)
    """Seconds between two pings on a realtime stream."""
    realtime_max_streams: int = Field(default=10_000, ge=1)
    """Realtime streams a workspace may have open in one process."""
    realtime_max_topics: int = Field(default=100, ge=1, le=10_000)
    """Topics one realtime stream may have."""
    realtime_max_subscriptions: int = Field(default=100_000, ge=1)
    """Topics that the streams of a workspace may have together in one process."""
    realtime_max_publishes: int = Field(default=500, ge=1)
    """Updates a second that a workspace's browsers may publish in one process."""
    realtime_max_bytes: int = Field(default=1024 * 1024, ge=1024)
    """Bytes a second of them."""

    mock_redis_max_bytes: int = Field(default=256 * 1024 * 1024, ge=1024 * 1024)
    """Most bytes that memory keeps before it evicts what expires first, or refuses."""

    redis_price_per_million: float | None = Field(default=None, ge=0)
    """US dollars a million commands cost, for the reports; unless set 2 for Upstash and 0 for any other store."""
    admin_tokens: Secret | None = None
    """Who may use the admin routes, `name:role:hash,name:role:hash`; a hash is the SHA-256 of a token in hex.

    A name is 1 to 32 of `a-z 0-9 _ -`, a role `viewer`, `operator` or `admin`. Several are valid at once, so that one can be
    rotated: add the new one, change who uses it, take the old one away. `raptorflow token` makes one.
    """

    raptorflow_state_dir: Path = Field(default_factory=_state_folder)
    """Folder of what this host keeps: the embedded store's data and socket."""

    raptorflow_log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that `raptorflow` logs of this library; `debug` has a line `Redis HIT` or `Redis MISS` for each cached value asked for."""
    raptorflow_host: str = "127.0.0.1"
    """Where the service listens."""
    raptorflow_port: int = Field(default=8000, ge=0, le=65_535)
    """The service's port."""
    gateway_port: int = Field(default=8079, ge=0, le=65_535)
    """The gateway's port."""
    gateway_token: Secret | None = None
    """Bearer tokens that the gateway accepts for everything, with commas between."""
    gateway_readonly_token: Secret | None = None
    """Bearer tokens that the gateway accepts for commands that only read, with commas between."""

    @field_validator("raptorflow_env", mode="before")
    @classmethod
    def _environment_in_lower_case(cls, value: object) -> object:
        return value.strip().lower() if isinstance(value, str) else value

    @field_serializer("upstash_redis_url", "redis_url")
    def _without_password(self, url: str | None) -> str | None:
        return url and redact_url(url)

    def __repr_args__(self) -> Iterator[tuple[str | None, object]]:
        # A URL may hold a password; secrets hide themselves.
        for name, value in super().__repr_args__():
            hidden = (name or "").upper() in _URLS and isinstance(value, str)
            yield name, redact_url(value) if hidden else value

    def check_mock(self) -> None:
        """Nothing, if this process may serve from memory.

        Raises:
            ConfigError: this is production, and memory is not allowed there by name.
        """
        if self.raptorflow_env == "production" and not self.mock_redis_in_production:
            raise ConfigError(
                "MOCK_REDIS",
                "true",
                "in production unset it: while the store is away a running service goes on in memory by itself, and comes back "
                "without loss. To start on memory all the same, set MOCK_REDIS_IN_PRODUCTION=true",
            )

    def store_address(self) -> StoreAddress | None:
        """The primary store's address, or None for the embedded one.

        Raises:
            ConfigError: a URL or its token is wrong or missing, or production names no store.
        """
        variable, url = (
            ("UPSTASH_REDIS_URL", self.upstash_redis_url)
            if self.upstash_redis_url
            else ("REDIS_URL", self.redis_url)
        )
        if not url:
            if self.raptorflow_env == "production":
                raise ConfigError(
                    "UPSTASH_REDIS_URL",
                    None,
                    "in production set it (or REDIS_URL) to the store; see the README",
                )
            return None
        address = parse_address(variable, url)
        if self.redis_password is not None and not address.is_rest:
            address = replace(address, password=self.redis_password)
        if address.is_rest and not self.upstash_redis_token:
            raise ConfigError("UPSTASH_REDIS_TOKEN", None, f"set it to the REST token of {address}")
        return address


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment and the `.env` files, checked.

    Args:
        overrides: settings by field name, stronger than anything else.

    Raises:
        ConfigError: one is wrong; names the variable, its value (redacted) and the remedy.
    """
    files = _env_files()
    try:
        settings = Settings(_env_file=files, **overrides)  # type: ignore[arg-type, call-arg]
    except ValidationError as error:
        raise _config_error(error) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            " or ".join(map(str, files)), "not UTF-8", f"save it as UTF-8 ({error.reason})"
        ) from None
    if settings.mock_redis:
        settings.check_mock()
    else:
        settings.store_address()
    return settings


def _env_files() -> list[Path]:
    files = [_BACKEND / ".env"]
    if os.environ.get("RAPTORFLOW_ENV", "").strip().lower() not in {"development", "test"}:
        files.append(_BACKEND / ".env.production")
    return files


def reads_production_file() -> bool:
    """Whether settings come from `backend/.env.production`, wherever this process says that it runs."""
    file = _BACKEND / ".env.production"
    return file in _env_files() and file.is_file()


def mock_wanted() -> bool:
    """What `MOCK_REDIS` is now, by the environment and the `.env` files as they are.

    Raises:
        ConfigError: it is neither true nor false, or a file is not UTF-8.
    """
    said = os.environ.get("MOCK_REDIS", "")
    for file in reversed(_env_files()):
        try:
            said = said or dotenv_values(file).get("MOCK_REDIS") or ""
        except UnicodeDecodeError as error:
            raise ConfigError(str(file), "not UTF-8", f"save it as UTF-8 ({error.reason})") from None
    try:
        return TypeAdapter(bool).validate_python(said.strip() or False)
    except ValidationError:
        raise ConfigError("MOCK_REDIS", said, "set it to true or false") from None


def env_file_stamp() -> tuple[tuple[int, int] | None, ...]:
    """What changes when a `.env` file does: date and size of each, None for one that is not there."""
    return tuple(_stamp(file) for file in _env_files())


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _config_error(error: ValidationError) -> ConfigError:
    first = error.errors(include_url=False)[0]
    variable = str(first["loc"][0]).upper() if first["loc"] else "settings"
    value = str(first.get("input"))
    if variable in _SECRETS:
        value = "***"
    elif variable in _URLS:
        value = redact_url(value)
    return ConfigError(variable, value, first["msg"][0].lower() + first["msg"][1:])


def plain_environment() -> dict[str, str]:
    """What any program needs of the environment: no setting of ours, nor anybody's token. For processes that are not trusted."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _PLAIN or name.startswith(_PLAIN_BEGINNINGS)
    }
