"""The language models that a caller may choose from."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool

from app.models.demo_model import DemoModel

DEMO = "demo"
# Always passed, because the client would use an empty OPENAI_BASE_URL.
OPENAI_URL = "https://api.openai.com/v1"


class ModelSettingError(ValueError):
    """A model of the settings cannot be used; the message says what to do."""


class UnknownModelError(ValueError):
    """A caller asked for a model that is not offered; the message names those that are."""


@dataclass(frozen=True)
class Models:
    """The models that are offered, loaded."""

    default: str
    by_name: Mapping[str, BaseChatModel]
    # Those that are asked in this order where another one fails.
    fallbacks: Mapping[str, BaseChatModel] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The names that a caller may choose from, the default first."""
        return list(self.by_name)

    def get(self, name: str | None) -> BaseChatModel:
        """Return the model of this name, or the default one; raise `UnknownModelError` for an unknown name."""
        try:
            return self.by_name[name or self.default]
        except KeyError:
            raise UnknownModelError(f"There is no model {name!r}; choose one of: {', '.join(self.names)}.") from None

    def chosen(self, config: RunnableConfig) -> BaseChatModel:
        """Return the model that a run asks for in `configurable["model"]`."""
        return self.get(config.get("configurable", {}).get("model"))

    def chosen_with_tools(
        self, config: RunnableConfig, tools: Sequence[BaseTool]
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return the model that a run asks for, with these tools; if it fails, its fallbacks are asked in order."""
        chosen = self.chosen(config)
        others = [model.bind_tools(tools) for model in self.fallbacks.values() if model is not chosen]
        first = chosen.bind_tools(tools)
        return first.with_fallbacks(others) if others else first

    def accept(self, kind: str, config: RunnableConfig) -> bool:
        """Return whether a run's model and its fallbacks take `image`, `pdf` or `audio`, as far as LangChain knows."""
        return all(
            (model.profile or {}).get(f"{kind}_inputs") for model in (self.chosen(config), *self.fallbacks.values())
        )


def load_models(
    default: str | None = None, others: Sequence[str] = (), demo_pace_s: float = 0.0, fallbacks: Sequence[str] = ()
) -> Models:
    """Return every model that is offered, and the fallbacks; raise `ModelSettingError` for one that cannot be used."""
    default = default or DEMO
    loaded = {name: load_model(name, demo_pace_s) for name in dict.fromkeys([default, *others, *fallbacks])}
    offered = {name: loaded[name] for name in dict.fromkeys([default, *others])}
    return Models(default, offered, {name: loaded[name] for name in fallbacks})


def load_model(name: str | None = None, demo_pace_s: float = 0.0) -> BaseChatModel:
    """Return the model called `demo` or `provider:name`; raise `ModelSettingError` if it cannot be used."""
    if not name or name == DEMO:
        return DemoModel(pace_s=demo_pace_s)
    provider, _, model = name.partition(":")
    if not provider or not model:
        raise ModelSettingError(f"MODEL={name}: write provider:name, such as openai:gpt-5.5, or demo.")
    try:
        return openai_model(model) if provider == "openai" else init_chat_model(model, model_provider=provider)
    except Exception as error:
        raise ModelSettingError(f"MODEL={name} cannot be used: {_first_paragraph(error)}") from error


def openai_model(model: str) -> BaseChatModel:
    """Return a model of OpenAI, or of the OpenAI-compatible server at OPENAI_BASE_URL."""
    from app.models.openai_chat import ChatOpenAI  # takes a second to import, and the demo does not need it

    key, base_url = os.environ.get("OPENAI_API_KEY"), os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
    if not key:
        raise ValueError("set OPENAI_API_KEY; use any value for your own server if it needs no key.")
    # Otherwise the client would raise "Connection error." at each request.
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(
            "OPENAI_API_KEY contains a space, a line break or a character that is not ASCII: copy it again."
        )
    if not base_url.startswith(("http://", "https://")):
        raise ValueError(f"OPENAI_BASE_URL={base_url}: begin it with http:// or https://.")
    return ChatOpenAI(model=model, base_url=base_url)


def _first_paragraph(error: Exception) -> str:
    """Return the part of a library's error message that says what to do."""
    return " ".join(str(error).split("\n\n", maxsplit=1)[0].split())
