"""The chat page's settings, read from the environment."""

from typing import Annotated

from pydantic import AnyHttpUrl, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.schema import check_bearer
from telemetry.settings import SettingsError, sentence


class Settings(BaseSettings):
    """The settings of the chat page; an empty variable counts as unset."""

    model_config = SettingsConfigDict(
        alias_generator=str.upper, env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    agent_url: AnyHttpUrl = Field(
        default=AnyHttpUrl("http://127.0.0.1:8080"), description="address of the agent service"
    )
    auth_secret: SecretStr | None = Field(default=None, description="the service's own secret, if it has one")
    user_id_header: str | None = Field(
        default=None, description="request header in which a proxy in front of the page names the user"
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="further names, by comma, under which a page that asks nobody who they are is opened",
    )

    @field_validator("auth_secret")
    @classmethod
    def _check_secret(cls, value: SecretStr | None) -> SecretStr | None:
        return value and check_bearer(value)

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def load_settings() -> Settings:
    """Return the settings of this process's environment; raise `SettingsError` where they are wrong."""
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError(sentence(error, Settings)) from None
