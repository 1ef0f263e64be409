"""What the environment says about the service, checked before it starts."""

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.models.prices import Price, prices
from telemetry.settings import SettingsError, sentence, unusable

# A process that stands still within a transaction, stopped or starved, would keep all others from its rows.
_LETS_GO = "-cidle_in_transaction_session_timeout=5000"


class Settings(BaseSettings):
    """The settings of the agent service; an empty value is an unset one."""

    model_config = SettingsConfigDict(
        env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True, populate_by_name=True
    )

    host: str = Field(default="127.0.0.1", alias="HOST", description="address to listen on")
    port: int = Field(default=8080, alias="PORT", ge=0, le=65535, description="port to listen on")
    data_dir: Path = Field(default=Path(".data"), alias="DATA_DIR", description="folder of threads, runs and files")
    database_url: SecretStr | None = Field(
        default=None,
        alias="DATABASE_URL",
        description="threads and runs in Postgres, as postgresql://user:password@host/name; without it in DATA_DIR",
    )
    model: str = Field(default="demo", alias="MODEL", description="default model, as provider:name; demo needs no key")
    models: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), alias="MODELS", description="further models that a caller may choose, by comma"
    )
    model_prices: Annotated[Mapping[str, Price], NoDecode] = Field(
        default_factory=dict,
        alias="MODEL_PRICES",
        description="dollars a million tokens cost, as model=input/output by comma; without it no cost is shown",
    )
    demo_pace_s: float = Field(
        default=0.03, alias="DEMO_PACE_S", ge=0, le=10, description="seconds between two words of the demo model"
    )
    auth_secret: SecretStr | None = Field(
        default=None,
        alias="AUTH_SECRET",
        description="callers send it, or a token signed with it, as bearer; needed to listen beyond this machine",
    )
    max_file_bytes: int = Field(
        default=100_000_000, alias="MAX_FILE_BYTES", ge=1, description="largest file that may be uploaded"
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
        description="media types that may be uploaded, by comma; a file's content says what it is, not its name",
    )
    files_url: str | None = Field(
        default=None,
        alias="FILES_URL",
        description="where files are kept, by fsspec (s3://bucket/prefix), for one database; without it in DATA_DIR",
    )
    hash_file_names: bool = Field(
        default=False,
        alias="HASH_FILE_NAMES",
        description="true shows a hash for a file's name in traces",
    )
    score_turns: bool = Field(
        default=False, alias="SCORE_TURNS", description="true scores each turn by a rule, as an example of an evaluator"
    )
    turn_timeout_s: float = Field(default=300, alias="TURN_TIMEOUT_S", gt=0, description="longest time a turn may take")
    heartbeat_s: float = Field(
        default=10,
        alias="HEARTBEAT_S",
        gt=0,
        le=60,
        description="seconds between two signs of life of a background run; after three it is taken for dead",
    )
    run_timeout_s: float = Field(
        default=3600, alias="RUN_TIMEOUT_S", gt=0, description="longest time a background run may take, retries and all"
    )
    run_concurrency: int = Field(
        default=4,
        alias="RUN_CONCURRENCY",
        ge=1,
        le=100,
        description="background runs of one agent at once in one process",
    )
    keepalive_s: float = Field(
        default=1,
        alias="KEEPALIVE_S",
        gt=0,
        le=1,
        description="longest silence of a stream, bridged by a comment line",
    )

    @field_validator("models", "file_types", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("model_prices", mode="before")
    @classmethod
    def _priced(cls, value: object) -> object:
        return prices(value) if isinstance(value, str) else value

    @field_validator("auth_secret")
    @classmethod
    def _long(cls, value: SecretStr | None) -> SecretStr | None:
        # RFC 7518: a key for HS256 is at least as long as the hash.
        if value is not None and len(value.get_secret_value().encode()) < 32:
            raise ValueError("is too short to sign tokens with: use 32 characters or more")
        return value

    @field_validator("database_url")
    @classmethod
    def _postgres(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not value.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("write it as postgresql://user:password@host/name, or leave it out for SQLite")
        if value and not _is_whole(value.get_secret_value()):
            raise ValueError("cannot be read: write special characters of its password as %-codes")
        return value

    @model_validator(mode="after")
    def _private(self) -> Self:
        if self.auth_secret is None and not _is_loopback(self.host):
            raise ValueError(
                f"HOST={self.host} would serve everybody without asking who they are: "
                "set AUTH_SECRET (32 characters or more), or HOST=127.0.0.1"
            )
        return self

    @property
    def postgres_url(self) -> str | None:
        """The database's address, password and all, for sessions that end where their process stands still."""
        if self.database_url is None:
            return None
        url = urlsplit(self.database_url.get_secret_value())
        query = dict(parse_qsl(url.query))
        query["options"] = " ".join(filter(None, [query.get("options"), _LETS_GO]))
        return url._replace(query=urlencode(query, quote_via=quote)).geturl()

    def no_folder(self, error: BaseException) -> SettingsError:
        """Return what a start is refused with where the folder cannot be used."""
        return unusable(f"DATA_DIR={self.data_dir}", error, "name a folder that can be written")


def load_settings() -> Settings:
    """Return the settings of this process's environment; raises `SettingsError` with one sentence."""
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError(sentence(error, Settings)) from None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_whole(url: str) -> bool:
    try:
        return not urlsplit(url).fragment
    except ValueError:
        return False
