"""What the environment says about the chat page."""

from pydantic import AnyHttpUrl, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from telemetry.settings import SettingsError, sentence


class Settings(BaseSettings):
    """The settings of the chat page; an empty value is an unset one."""

    model_config = SettingsConfigDict(
        alias_generator=str.upper, env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    agent_url: AnyHttpUrl = Field(
        default=AnyHttpUrl("http://127.0.0.1:8080"), description="address of the agent service"
    )
    auth_secret: SecretStr | None = Field(default=None, description="the service's own secret, where it has one")
    user_id_header: str | None = Field(
        default=None, description="header in which a proxy before this page names the user"
    )


def load_settings() -> Settings:
    """Return the settings of this process's environment; raises `SettingsError` with one sentence."""
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError(sentence(error, Settings)) from None
