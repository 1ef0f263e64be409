"""The settings of the viewer, read from the environment."""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PROJECT = "local"
# Where a browser keeps its token.
COOKIE = "viewer_token"
# A shorter token could be guessed.
TOKEN_LENGTH = 16


class ViewerSettings(BaseSettings):
    """The settings of the viewer: its address, its keys, and its storage."""

    model_config = SettingsConfigDict(env_prefix="VIEWER_", env_ignore_empty=True, extra="ignore")

    host: str = Field(
        default="127.0.0.1", description="address to listen on; if other machines can connect, set your own keys"
    )
    port: int = Field(default=3000, ge=0, le=65535, description="port to listen on")
    db: Path = Field(default=Path(".data/viewer.db"), description="file that stores traces and scores")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="further host names of the viewer, comma-separated; on loopback only these and local ones",
    )
    public_key: str = Field(default="pk-lf-local", description="public key that senders authenticate with")
    secret_key: SecretStr = Field(
        default=SecretStr("sk-lf-local"), description="secret key that senders authenticate with"
    )
    tokens: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(), description="tokens of the people who may use it, comma-separated; the pages then ask for one"
    )
    prices: Path | None = Field(
        default=None, description="CSV file of your own prices of models; without it, those of genai-prices"
    )
    chat_url: str = Field(
        default="",
        pattern=r"^(https?://.*\{session_id\}.*)?$",
        description="template of the links that open a session in the chat, with {session_id}",
    )
    max_bytes: int = Field(
        default=512 * 1024 * 1024,
        ge=1024 * 1024,
        description="size in bytes beyond which the oldest traces are deleted",
    )
    max_age_days: float | None = Field(
        default=None, gt=0, le=36_500, description="age in days beyond which traces are deleted; empty: any age"
    )
    score_delay_s: float = Field(
        default=0.0, ge=0, description="seconds after which a score can be read, as on a Langfuse server (some 5 there)"
    )
    deletion_interval_s: float = Field(
        default=0.0,
        ge=0,
        description="seconds between two rounds of deletions of scores, as on a Langfuse server (120 there)",
    )

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the viewer."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @field_validator("allowed_hosts", "tokens", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, (name.strip() for name in value.split(",")))) if isinstance(value, str) else value

    @field_validator("tokens")
    @classmethod
    def _is_hard_to_guess(cls, tokens: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(len(token) < TOKEN_LENGTH for token in tokens):
            raise ValueError(f"each token needs {TOKEN_LENGTH} characters or more, as from `openssl rand -hex 16`")
        return tokens

    @model_validator(mode="after")
    def _strangers_need_keys(self) -> Self:
        if not self.loopback and not {"public_key", "secret_key"} <= self.model_fields_set:
            raise ValueError(
                f"VIEWER_HOST={self.host} lets other machines in: "
                "set VIEWER_PUBLIC_KEY and VIEWER_SECRET_KEY, or bind to 127.0.0.1."
            )
        return self
