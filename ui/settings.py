"""What the environment says about the chat page."""

from pydantic import AnyHttpUrl, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from telemetry import SettingsError, sentence


class Settings(BaseSettings):
    """The settings of the chat page; an empty value is an unset one."""

    model_config = SettingsConfigDict(
        env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True, populate_by_name=True
    )

    agent_url: AnyHttpUrl = Field(
        AnyHttpUrl("http://127.0.0.1:8080"), alias="AGENT_URL", description="address of the agent service"
    )
    auth_secret: SecretStr | None = Field(
        None, alias="AUTH_SECRET", description="the service's own secret, where it has one"
    )
    user_id_header: str | None = Field(
        None, alias="USER_ID_HEADER", description="header in which a proxy before this page names the user"
    )


def load_settings() -> Settings:
    """Return the settings of this process's environment; raises `SettingsError` with one sentence."""
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError(sentence(error)) from None
