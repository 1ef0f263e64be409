"""The settings of the demo."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

Port = Annotated[int, Field(ge=1, le=65535)]


class DemoError(Exception):
    """The demo cannot continue; the message says why and what to do."""


class DemoSettings(BaseSettings):
    """The ports of the demo's processes, and whether it ends after its turn."""

    model_config = SettingsConfigDict(
        alias_generator=str.upper, env_ignore_empty=True, extra="ignore", hide_input_in_errors=True
    )

    port: Port = Field(default=8080, description="port of the service")
    ui_port: Port = Field(default=8501, description="port of the chat")
    viewer_port: Port = Field(default=3000, description="port of the viewer")
    viewer_public_key: str = "pk-lf-local"
    viewer_secret_key: SecretStr = SecretStr("sk-lf-local")
    data_dir: Path = Field(default=Path(".data"), description="folder for all data of the demo")
    auth_secret: SecretStr | None = None
    demo_once: bool = Field(default=False, description="true ends the demo after one turn")
    collector: bool = Field(default=False, description="true sends spans through the collector")
    collector_port: Port = Field(default=4318, description="port of the collector")
    collector_health_port: Port = Field(default=13133, description="port of the collector's health check")
    prometheus: bool = Field(default=False, description="true starts a Prometheus that reads the service's metrics")
    prometheus_port: Port = Field(default=9090, description="port of Prometheus")
