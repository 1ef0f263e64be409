"""The settings of the service, from environment variables, checked before it starts."""

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.models.usage import Price, parse_prices
from app.schema import check_bearer
from telemetry.settings import SettingsError, sentence, unusable

# A process that is stopped or starved within a transaction would keep its rows locked.
_SESSION_OPTIONS = "-cidle_in_transaction_session_timeout=5000"
# A server that the network does not reach any more is noticed within ten seconds. The address's own values win.
_CONNECTION = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}


class ServiceSettings(BaseSettings):
    """The settings of the agent service; an empty variable counts as unset."""

    model_config = SettingsConfigDict(
        env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True, populate_by_name=True
    )

    host: str = Field(default="127.0.0.1", alias="HOST", description="address to listen on")
    port: int = Field(default=8080, alias="PORT", ge=0, le=65535, description="port to listen on")
    data_dir: Path = Field(default=Path(".data"), alias="DATA_DIR", description="folder of threads, runs and files")
    database_url: SecretStr | None = Field(
        default=None,
        alias="DATABASE_URL",
        description="Postgres for threads and runs, postgresql://user:password@host/name; default: SQLite in DATA_DIR",
    )
    database_direct_url: SecretStr | None = Field(
        default=None,
        alias="DATABASE_DIRECT_URL",
        description="the same database without a pooler in transaction mode, if DATABASE_URL leads to one",
    )
    model: str = Field(default="demo", alias="MODEL", description="default model, as provider:name; demo needs no key")
    models: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), alias="MODELS", description="further models that a caller may choose, comma-separated"
    )
    model_fallbacks: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        alias="MODEL_FALLBACKS",
        description="models that are asked in this order where the chosen one fails, comma-separated",
    )
    model_prices: Annotated[Mapping[str, Price], NoDecode] = Field(
        default_factory=dict,
        alias="MODEL_PRICES",
        description="dollars per million tokens, model=input/output, comma-separated; without it no cost is shown",
    )
    demo_pace_s: float = Field(
        default=0.03, alias="DEMO_PACE_S", ge=0, le=10, description="pause in seconds between words of the demo model"
    )
    auth_secret: SecretStr | None = Field(
        default=None,
        alias="AUTH_SECRET",
        description="callers send it, or a token signed with it, as bearer; required if other machines can connect",
    )
    auth_tokens_without_exp: bool = Field(
        default=False,
        alias="AUTH_TOKENS_WITHOUT_EXP",
        description="true also accepts tokens without `exp`, which never expire",
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        alias="ALLOWED_HOSTS",
        description="further names, by comma, under which a service without AUTH_SECRET is called; loopback always is",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        alias="CORS_ORIGINS",
        description="origins, by comma, whose pages may call the service from a browser, as https://app.example",
    )
    root_path: str = Field(
        default="", alias="ROOT_PATH", pattern="^(/.*[^/])?$", description="path that a proxy serves it under, as /api"
    )
    max_file_bytes: int = Field(
        default=100_000_000, alias="MAX_FILE_BYTES", ge=1, description="largest file in bytes that may be uploaded"
    )
    file_types: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(
            "text/*",
            "image/*",
            "audio/*",
            "video/*",
            "application/pdf",
            "application/zip",
            "application/gzip",
            "application/vnd.openxmlformats-officedocument.*",
        ),
        alias="FILE_TYPES",
        description="media types that may be uploaded, comma-separated; detected by a file's content, not its name",
    )
    files_url: str | None = Field(
        default=None,
        alias="FILES_URL",
        description="fsspec address where files are stored (s3://bucket/prefix), for one database; default: DATA_DIR",
    )
    retention_days: float | None = Field(
        default=None,
        alias="RETENTION_DAYS",
        gt=0,
        description="days without a turn or an upload after which a thread is removed with all it has; default: never",
    )
    hash_file_names: bool = Field(
        default=False,
        alias="HASH_FILE_NAMES",
        description="true shows a hash instead of a file's name in traces",
    )
    score_turns: bool = Field(
        default=False, alias="SCORE_TURNS", description="true scores each turn by a rule, as an example of an evaluator"
    )
    turn_timeout_s: float = Field(
        default=300, alias="TURN_TIMEOUT_S", gt=0, description="longest time in seconds that a turn may take"
    )
    heartbeat_s: float = Field(
        default=10,
        alias="HEARTBEAT_S",
        gt=0,
        le=60,
        description="seconds between two heartbeats of a background run; if three are missing, it counts as dead",
    )
    run_timeout_s: float = Field(
        default=3600,
        alias="RUN_TIMEOUT_S",
        gt=0,
        description="longest time in seconds that a background run may take, including retries",
    )
    run_concurrency: int = Field(
        default=4,
        alias="RUN_CONCURRENCY",
        ge=1,
        le=100,
        description="how many background runs of one agent a process runs at once",
    )
    max_turns_per_user: int | None = Field(
        default=None,
        alias="MAX_TURNS_PER_USER",
        ge=1,
        description="how many turns and background runs of one user may run at once; default: any number",
    )
    max_messages_per_minute: int | None = Field(
        default=None,
        alias="MAX_MESSAGES_PER_MINUTE",
        ge=1,
        description="how many messages one user may send within a minute; default: any number",
    )
    max_tokens_per_day: int | None = Field(
        default=None,
        alias="MAX_TOKENS_PER_DAY",
        ge=1,
        description="tokens, read and written, after which a user's turns are refused for the rest of 24 hours",
    )
    keepalive_s: float = Field(
        default=1,
        alias="KEEPALIVE_S",
        gt=0,
        le=1,
        description="seconds without an event after which a stream sends a comment line",
    )

    @field_validator("models", "model_fallbacks", "file_types", "allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def _split_list(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("model_prices", mode="before")
    @classmethod
    def _parse_prices(cls, value: object) -> object:
        return parse_prices(value) if isinstance(value, str) else value

    @field_validator("auth_secret")
    @classmethod
    def _check_secret(cls, value: SecretStr | None) -> SecretStr | None:
        # RFC 7518: a key for HS256 is at least as long as the hash.
        if value is not None and len(value.get_secret_value().encode()) < 32:
            raise ValueError("is too short to sign tokens with: use 32 characters or more")
        return value and check_bearer(value)

    @field_validator("database_url", "database_direct_url")
    @classmethod
    def _check_database_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not value.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("write it as postgresql://user:password@host/name, or leave it out for SQLite")
        if value and not _can_be_parsed(value.get_secret_value()):
            raise ValueError("cannot be parsed: percent-encode special characters in its password")
        return value

    @model_validator(mode="after")
    def _require_pooled_url(self) -> Self:
        if self.database_direct_url and self.database_url is None:
            raise ValueError("DATABASE_DIRECT_URL is set without DATABASE_URL: name the database in DATABASE_URL")
        return self

    @model_validator(mode="after")
    def _require_secret_beyond_loopback(self) -> Self:
        if self.auth_secret is None and not _is_loopback(self.host):
            raise ValueError(
                f"HOST={self.host} would serve anyone without authentication: "
                "set AUTH_SECRET (32 characters or more), or HOST=127.0.0.1"
            )
        return self

    @property
    def postgres_url(self) -> str | None:
        """The database's address for sessions, with its password and with timeouts."""
        url = self.database_direct_url if self.database_url else None
        url = url or self.database_url
        return None if url is None else _with_timeouts(url, {"options": _SESSION_OPTIONS})

    @property
    def postgres_pooler_url(self) -> str | None:
        """The address of a pooler in front of the database, which knows no sessions; None without one."""
        if self.database_url is None or self.database_direct_url is None:
            return None
        return _with_timeouts(self.database_url, {})

    def unusable_data_dir(self, error: BaseException) -> SettingsError:
        """Return the error of a start whose data folder cannot be used."""
        return unusable(f"DATA_DIR={self.data_dir}", error, "name a folder that can be written")


def load_settings() -> ServiceSettings:
    """Return the settings in this process's environment; raise `SettingsError` with one sentence."""
    try:
        return ServiceSettings()
    except ValidationError as error:
        raise SettingsError(sentence(error, ServiceSettings)) from None


def _with_timeouts(address: SecretStr, options: Mapping[str, str]) -> str:
    url = urlsplit(address.get_secret_value())
    query = _CONNECTION | dict(parse_qsl(url.query))
    for name, value in options.items():
        query[name] = " ".join(filter(None, [query.get(name), value]))
    return url._replace(query=urlencode(query, quote_via=quote)).geturl()


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _can_be_parsed(url: str) -> bool:
    try:
        return not urlsplit(url).fragment
    except ValueError:
        return False
