"""What the environment says about tracing, resolved once and checked before anything starts."""

import difflib
import os
import re
from base64 import b64encode
from collections.abc import Mapping, MutableMapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import unquote, urlsplit

from opentelemetry.sdk.resources import OTELResourceDetector
from opentelemetry.util.re import parse_env_headers
from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from telemetry import sdk_variables
from telemetry.redact.patterns import compiled

LANGFUSE_CLOUD = "https://cloud.langfuse.com"
LANGFUSE_TRACES = "/api/public/otel/v1/traces"
# Langfuse 4 answers without this header too, but some deployments then take minutes to show a span.
LANGFUSE_VERSION_HEADER = {"x-langfuse-ingestion-version": "4"}

_ENVIRONMENT = re.compile(r"(?!langfuse)[a-z0-9-_]{1,40}")
_HEADER = re.compile(r"[!#-'*+.0-9A-Z^-z|~-]+[ \t]*=[ !#-+\--:<-\[\]-~]*")
_NO_ENVIRONMENT = "would become 'default' in Langfuse: use a-z, 0-9, - and _, at most 40, not beginning with 'langfuse'"

Budget = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(ge=0, le=1)]
Sampler = Literal[
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
]


class SettingsError(ValueError):
    """A setting that cannot be served; its message is one sentence that says what to do."""


class Settings(BaseSettings):
    """The tracing settings of one process; no secret shows in its repr.

    The standard `OTEL_*` names win over anything derived from `LANGFUSE_*`. An empty value is an unset one.
    """

    model_config = SettingsConfigDict(
        env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True, populate_by_name=True
    )

    sdk_disabled: Literal["true", "false"] = Field(
        default="false", alias="OTEL_SDK_DISABLED", description="true turns tracing off"
    )
    tracing: bool = Field(default=True, alias="LANGFUSE_TRACING", description="false turns tracing off")
    exporter: Literal["otlp", "console", "none"] = Field(
        default="otlp", alias="OTEL_TRACES_EXPORTER", description="where finished spans go: otlp, console or none"
    )
    protocol: Literal["http/protobuf"] = Field(
        default="http/protobuf",
        validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"),
        description="the wire format; only http/protobuf is spoken",
    )
    otlp_traces_endpoint: str | None = Field(
        default=None, alias="OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", description="full address that spans are posted to"
    )
    otlp_endpoint: str | None = Field(
        default=None,
        alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="base address of any OTLP/HTTP backend or collector; /v1/traces is added",
    )
    otlp_headers: SecretStr = Field(
        default=SecretStr(""),
        validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"),
        description="headers of every export, as name=value,name=value",
    )
    compression: Literal["gzip", "none"] = Field(
        default="gzip",
        validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"),
        description="gzip or none",
    )
    timeout: float = Field(
        default=10,
        gt=0,
        le=3600,
        validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"),
        description="seconds that an answer of the backend may take",
    )
    certificate: str | None = Field(
        default=None,
        validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"),
        description="file of the authorities that the backend's certificate is checked against",
    )
    client_certificate: str | None = Field(
        default=None,
        validation_alias=AliasChoices(
            "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"
        ),
        description="file of the certificate that the backend asks for",
    )
    client_key: str | None = Field(
        default=None,
        validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY"),
        description="file of that certificate's key",
    )
    schedule_delay_ms: float = Field(
        default=500,
        alias="OTEL_BSP_SCHEDULE_DELAY",
        ge=0,
        le=60_000,
        description="milliseconds that finished spans are gathered for a request, where nothing presses",
    )
    max_request_bytes: int = Field(
        default=3_500_000,
        alias="TELEMETRY_MAX_REQUEST_BYTES",
        ge=10_000,
        description="largest request, before compression; a larger span goes alone",
    )
    spool: bool = Field(
        default=True,
        alias="TELEMETRY_SPOOL",
        description="false keeps finished spans in memory until they are sent; they end with the process",
    )
    spool_dir: Path = Field(
        default=Path(".data/spool"),
        alias="TELEMETRY_SPOOL_DIR",
        description="folder of finished spans that the backend has not accepted yet; processes may share it",
    )
    spool_max_bytes: int = Field(
        default=512 * 1024 * 1024,
        alias="TELEMETRY_SPOOL_MAX_BYTES",
        ge=1_000_000,
        description="most bytes that one process keeps there; the oldest spans go beyond it",
    )
    spool_max_age: float = Field(
        default=7 * 24 * 3600,
        alias="TELEMETRY_SPOOL_MAX_AGE",
        gt=0,
        description="seconds after which a span that could not be sent goes",
    )
    spool_write_through: bool = Field(
        default=False,
        alias="TELEMETRY_SPOOL_WRITE_THROUGH",
        description="true writes each span before its end returns: a SIGKILL loses none, an end costs a write",
    )
    spool_fsync: bool = Field(
        default=False,
        alias="TELEMETRY_SPOOL_FSYNC",
        description="true waits for the disk at each write: a power cut loses nothing that was written",
    )
    keep_rate: Rate | None = Field(
        default=None,
        alias="TELEMETRY_KEEP_RATE",
        description="share of the ordinary turns whose traces are kept, beside those that failed or were slow, decided "
        "when they end; without it every span goes at once",
    )
    slow_s: float = Field(
        default=10, alias="TELEMETRY_SLOW_S", gt=0, description="seconds from which a turn is slow, and kept"
    )
    hold_s: float = Field(
        default=300,
        alias="TELEMETRY_HOLD_S",
        gt=0,
        description="seconds for which a trace that is not kept can still be brought back, by feedback for one",
    )
    langfuse_host: str | None = Field(
        default=None,
        validation_alias=AliasChoices("LANGFUSE_BASE_URL", "LANGFUSE_HOST"),
        description=f"address of Langfuse; {LANGFUSE_CLOUD} where only keys are given",
    )
    public_key: str | None = Field(
        default=None, alias="LANGFUSE_PUBLIC_KEY", description="the project's public key, pk-lf-…"
    )
    secret_key: SecretStr | None = Field(
        default=None, alias="LANGFUSE_SECRET_KEY", description="the project's secret key, sk-lf-…"
    )
    langsmith_api_key: SecretStr | None = Field(
        default=None, alias="LANGSMITH_API_KEY", description="scores go to LangSmith as well, as feedback on their runs"
    )
    langsmith_endpoint: str = Field(
        default="https://api.smith.langchain.com", alias="LANGSMITH_ENDPOINT", description="address of LangSmith"
    )
    langsmith_project: str = Field(
        default="default", alias="LANGSMITH_PROJECT", description="project in LangSmith that the runs are in"
    )
    sampling_rate: Rate | None = Field(
        default=None,
        validation_alias=AliasChoices("LANGFUSE_SAMPLING_RATE", "LANGFUSE_SAMPLE_RATE"),
        description="share of the traces that are recorded, 0 to 1; all without it",
    )
    sampler: Sampler | None = Field(
        default=None,
        alias="OTEL_TRACES_SAMPLER",
        description="the standard sampler; wins over LANGFUSE_SAMPLING_RATE",
    )
    sampler_arg: Rate = Field(default=1.0, alias="OTEL_TRACES_SAMPLER_ARG", description="the ratio of a ratio sampler")
    environment: str | None = Field(
        default=None,
        validation_alias=AliasChoices("LANGFUSE_ENVIRONMENT", "LANGFUSE_TRACING_ENVIRONMENT"),
        description="environment that traces and scores are filed under: a-z, 0-9, - and _, at most 40",
    )
    release: str | None = Field(
        default=None, alias="LANGFUSE_RELEASE", description="release that traces are filed under"
    )
    trusted_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        alias="TELEMETRY_TRUSTED_HOSTS",
        description="further hosts (host or host:port, by comma) that may receive trace headers",
    )
    model_http: bool = Field(
        default=False,
        alias="TELEMETRY_MODEL_HTTP",
        description="true also records the HTTP calls of the model's own client",
    )
    trace_url: str | None = Field(
        default=None,
        alias="TRACE_URL",
        description="template of the link that people open, with {trace_id}; asked of Langfuse without it",
    )

    langchain: Literal["openinference", "recorder"] = Field(
        default="openinference",
        alias="TELEMETRY_LANGCHAIN",
        description="who records LangChain's runs: openinference, or recorder, which costs a fraction of it",
    )
    shape: Literal["langfuse", "openinference"] = Field(
        default="langfuse",
        alias="TELEMETRY_SHAPE",
        description="langfuse makes spans that Langfuse shows well, on every route: a collector's address does not say "
        "who is behind it; openinference keeps the instrumentors' own keys, which other backends draw messages from",
    )
    content: Literal["full", "metadata-only"] = Field(
        default="full",
        alias="TELEMETRY_CONTENT",
        description="metadata-only keeps back all that was said; names, times, usage and errors' types remain",
    )
    hide_inputs: bool = Field(
        default=False, alias="OPENINFERENCE_HIDE_INPUTS", description="true keeps back what goes into any span"
    )
    hide_outputs: bool = Field(
        default=False, alias="OPENINFERENCE_HIDE_OUTPUTS", description="true keeps back what comes out of any span"
    )
    redact_contacts: bool = Field(
        default=False,
        alias="TELEMETRY_REDACT_CONTACTS",
        description="true also takes e-mail addresses and phone numbers out",
    )
    redact_patterns: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        alias="TELEMETRY_REDACT_PATTERNS",
        description="own expressions of what to take out, one a line, in RE2's syntax",
    )
    user_hash_key: SecretStr | None = Field(
        default=None,
        alias="TELEMETRY_USER_HASH_KEY",
        description="key of the hash that stands for user ids; they go as they are without it",
    )
    max_value_bytes: Budget = Field(
        default=48_000,
        alias="TELEMETRY_MAX_VALUE_BYTES",
        description="longer values are shortened to this; 0 keeps them whole",
    )
    max_span_bytes: Budget = Field(
        default=256_000,
        alias="TELEMETRY_MAX_SPAN_BYTES",
        description="a span's values together are shortened to this; 0 keeps them whole",
    )

    @field_validator("sdk_disabled", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("trusted_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("redact_patterns", mode="before")
    @classmethod
    def _lines(cls, value: object) -> object:
        return tuple(filter(None, map(str.strip, value.splitlines()))) if isinstance(value, str) else value

    @field_validator("redact_patterns")
    @classmethod
    def _expressions(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            compiled(pattern)
        return value

    @field_validator("otlp_traces_endpoint", "otlp_endpoint", "langfuse_host")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("is not an address: write it as https://host or http://host:port")
        if not re.fullmatch(r"[!-~]+", value) or (parts.port or 1) < 1:
            raise ValueError("is not an address: a sign in it cannot be part of one")
        if parts.username or parts.password:
            raise ValueError("holds a password: put it into OTEL_EXPORTER_OTLP_HEADERS or the LANGFUSE_* keys")
        if parts.query or parts.fragment:
            # A path is put behind it, and addresses are shown where secrets are not.
            raise ValueError("ends in a query: put what it says into OTEL_EXPORTER_OTLP_HEADERS")
        return value.rstrip("/")

    @field_validator("otlp_headers")
    @classmethod
    def _headers(cls, value: SecretStr) -> SecretStr:
        # What reads them passes over one that it cannot read, and logs it, secret and all.
        given = [part.strip() for part in value.get_secret_value().split(",") if part.strip()]
        if not all(_HEADER.fullmatch(each) and unquote(each, "latin-1").isprintable() for each in given):
            raise ValueError("is not a list of headers: write name=value,name=value, special signs URL-encoded")
        return value

    @field_validator("public_key")
    @classmethod
    def _public(cls, value: str | None) -> str | None:
        if value and value.startswith("sk-lf-"):
            raise ValueError("is a secret key: it and LANGFUSE_SECRET_KEY have changed places")
        return value

    @field_validator("environment")
    @classmethod
    def _environment(cls, value: str | None) -> str | None:
        if value is not None and not _ENVIRONMENT.fullmatch(value):
            raise ValueError(_NO_ENVIRONMENT)
        return value

    @field_validator("trace_url")
    @classmethod
    def _template(cls, value: str | None) -> str | None:
        if value is not None and ("{trace_id}" not in value or not value.startswith(("http://", "https://"))):
            raise ValueError("is not a template: write it as https://host/path/{trace_id}")
        return value

    @model_validator(mode="after")
    def _keys(self) -> Self:
        if bool(self.public_key) != bool(self.secret_key):
            raise ValueError("LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY belong together: set both or neither")
        if self.enabled and self.exporter == "otlp" and not self.endpoint and self.langfuse_host:
            raise ValueError(
                "LANGFUSE_HOST is set without keys: set LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY, "
                "or OTEL_EXPORTER_OTLP_ENDPOINT, or LANGFUSE_TRACING=false"
            )
        return self

    @model_validator(mode="after")
    def _filed_under(self) -> Self:
        known = OTELResourceDetector().detect().attributes
        named = known.get("deployment.environment.name") or known.get("deployment.environment")
        if self.active and self.shape == "langfuse" and named and not _ENVIRONMENT.fullmatch(str(named).lower()):
            raise ValueError(f"deployment.environment.name in OTEL_RESOURCE_ATTRIBUTES {_NO_ENVIRONMENT}")
        return self

    @property
    def enabled(self) -> bool:
        """Whether tracing is switched on at all."""
        return self.tracing and self.sdk_disabled == "false"

    @property
    def active(self) -> bool:
        """Whether spans are made: tracing is on and they have somewhere to go."""
        return self.enabled and (self.exporter == "console" or bool(self.exporter == "otlp" and self.endpoint))

    @property
    def records_nothing(self) -> bool:
        """Whether a sampler that is set leaves out every trace that begins here."""
        rate = self.sampler_arg if self.sampler else self.sampling_rate
        return (self.sampler or "").endswith("always_off") or (rate == 0 and "always_on" not in (self.sampler or ""))

    @cached_property
    def endpoint(self) -> str | None:
        """The full address that spans are posted to, None without a backend."""
        if self.otlp_traces_endpoint:
            return self.otlp_traces_endpoint
        if self.otlp_endpoint:
            return f"{self.otlp_endpoint}/v1/traces"
        return self.langfuse_url + LANGFUSE_TRACES if self.langfuse_url else None

    @property
    def langfuse_url(self) -> str | None:
        """The address of the Langfuse that the keys belong to, None without keys."""
        return (self.langfuse_host or LANGFUSE_CLOUD) if self.public_key else None

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every export; the keys go to the Langfuse they belong to and nowhere else."""
        given = parse_env_headers(self.otlp_headers.get_secret_value(), liberal=True)
        path = urlsplit(self.endpoint or "").path
        version = LANGFUSE_VERSION_HEADER if path == LANGFUSE_TRACES else {}
        return {**version, **self._authorization(), **given}

    def _authorization(self) -> dict[str, str]:
        if self.otlp_endpoint or self.otlp_traces_endpoint or not self.secret_key:
            return {}
        pair = f"{self.public_key}:{self.secret_key.get_secret_value()}"
        return {"authorization": f"Basic {b64encode(pair.encode()).decode()}"}


def load_settings() -> Settings:
    """Return the settings of this process's environment.

    Raises `SettingsError` for a value that is unknown, contradictory or unsafe, and for a name that is nearly one of
    ours.
    """
    refuse_nonsense()
    _refuse_unknown_names(os.environ)
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError(sentence(error, Settings)) from None


def refuse_nonsense() -> None:
    """Raise `SettingsError` for a variable that the SDK itself would fail over."""
    _unset_empty(os.environ)
    for _, complaint in sdk_variables.complaints(os.environ):
        raise SettingsError(complaint)


def unusable(setting: str, error: BaseException, advice: str) -> SettingsError:
    """Return what a start is refused with where that which a setting names cannot be used."""
    said = (getattr(error, "strerror", None) or str(error)).strip() or type(error).__name__
    return SettingsError(f"{setting} cannot be used ({said.splitlines()[0]}): {advice}.")


def sentence(error: ValidationError, model: type[BaseSettings]) -> str:
    """Return the first complaint of a settings model as one sentence that names the variable."""
    first = error.errors(include_url=False)[0]
    text = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return f"{text}."
    return f"{_set_name(model, str(first['loc'][0]))} {text[0].lower()}{text[1:]}."


def _set_name(model: type[BaseSettings], reported: str) -> str:
    # Of several names for one setting pydantic reports the first, whichever was set.
    among = next((names for names in _names(model) if reported in names), [reported])
    return next((name for name in among if os.environ.get(name)), reported)


def variables(model: type[BaseSettings], name: str) -> list[str]:
    """Return the environment variables that a setting is read from, the one that counts first."""
    match model.model_fields[name].validation_alias:
        case AliasChoices(choices=choices):
            return [str(choice) for choice in choices]
        case str(alias):
            return [alias]
        case _:
            return [f"{model.model_config.get('env_prefix', '')}{name}".upper()]


def _names(model: type[BaseSettings]) -> list[list[str]]:
    return [variables(model, name) for name in model.model_fields]


def _unset_empty(environ: MutableMapping[str, str]) -> None:
    # The libraries that read these themselves log a warning, or a traceback, for an empty one.
    for name in [name for name, value in environ.items() if name.startswith(("OTEL_", "OPENINFERENCE_")) and not value]:
        del environ[name]


def _refuse_unknown_names(environ: Mapping[str, str]) -> None:
    known = {name for names in _names(Settings) for name in names}
    for name in sorted(environ):
        if name in known or not name.startswith(("TELEMETRY_", "LANGFUSE_")):
            continue
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.9)
        # Other LANGFUSE_* names belong to the SDK or to a Langfuse server on the same machine.
        if close or name.startswith("TELEMETRY_"):
            hint = f"did you mean {close[0]}?" if close else "remove it."
            raise SettingsError(f"{name} is not a setting: {hint}")
