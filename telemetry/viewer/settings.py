"""What the viewer reads from the environment."""

from ipaddress import ip_address
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PROJECT = "local"


class Settings(BaseSettings):
    """Where the viewer listens, whom it lets in, and where and how much it keeps."""

    model_config = SettingsConfigDict(env_prefix="VIEWER_", env_ignore_empty=True, extra="ignore")

    host: str = Field(default="127.0.0.1", description="address to listen on; another machine's needs own keys")
    port: int = Field(default=3000, ge=0, le=65535, description="port to listen on")
    db: Path = Field(default=Path(".data/viewer.db"), description="file that traces and scores are kept in")
    public_key: str = Field(default="pk-lf-local", description="name that senders log in with")
    secret_key: SecretStr = Field(default=SecretStr("sk-lf-local"), description="their password")
    max_bytes: int = Field(
        default=512 * 1024 * 1024, ge=1024 * 1024, description="size of the file beyond which the oldest traces go"
    )

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the viewer."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @model_validator(mode="after")
    def _strangers_need_keys(self) -> Self:
        if not self.loopback and not {"public_key", "secret_key"} <= self.model_fields_set:
            raise ValueError(
                f"VIEWER_HOST={self.host} lets other machines in: "
                "set VIEWER_PUBLIC_KEY and VIEWER_SECRET_KEY, or bind to 127.0.0.1."
            )
        return self
