"""Which language models the service talks to, and which of them a caller may choose."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableConfig

from app.models.demo_model import DemoModel

DEMO = "demo"
OPENAI = "https://api.openai.com/v1"  # said by us: the client takes an empty OPENAI_BASE_URL at its word


class ModelSettingError(ValueError):
    """A model of the settings cannot be used; says what to do."""


class UnknownModelError(ValueError):
    """A caller asked for a model that is not offered; names those that are."""


@dataclass(frozen=True)
class Models:
    """The models on offer, loaded."""

    default: str
    by_name: Mapping[str, BaseChatModel]

    @property
    def names(self) -> list[str]:
        """What a caller may choose from, the default first."""
        return list(self.by_name)

    def get(self, name: str | None) -> BaseChatModel:
        """The model of this name, the default one without; raises `UnknownModelError`."""
        try:
            return self.by_name[name or self.default]
        except KeyError:
            raise UnknownModelError(f"There is no model {name!r}; choose one of: {', '.join(self.names)}.") from None

    def chosen(self, config: RunnableConfig) -> BaseChatModel:
        """The model that a run asks for in `configurable["model"]`."""
        return self.get(config.get("configurable", {}).get("model"))


def load_models(default: str | None = None, others: Sequence[str] = (), demo_pace_s: float = 0.0) -> Models:
    """Every model on offer, ready to use; raises `ModelSettingError` for one that is not."""
    default = default or DEMO
    names = dict.fromkeys([default, *others])
    return Models(default, {name: load_model(name, demo_pace_s) for name in names})


def load_model(name: str | None = None, demo_pace_s: float = 0.0) -> BaseChatModel:
    """The model called `demo` or `provider:name`; raises `ModelSettingError` where it cannot be used."""
    if not name or name == DEMO:
        return DemoModel(pace_s=demo_pace_s)
    provider, _, model = name.partition(":")
    if not provider or not model:
        raise ModelSettingError(f"MODEL={name}: write provider:name, such as openai:gpt-5.5, or demo.")
    try:
        return openai_model(model) if provider == "openai" else init_chat_model(model, model_provider=provider)
    except Exception as error:
        raise ModelSettingError(f"MODEL={name} cannot be used: {reason(error)}") from error


def openai_model(model: str) -> BaseChatModel:
    """A model of OpenAI, or of the server at OPENAI_BASE_URL that speaks as OpenAI does."""
    from app.models.openai_chat import ChatOpenAI  # takes a second, which the demo does without

    if not os.environ.get("OPENAI_API_KEY"):
        raise ValueError("set OPENAI_API_KEY, to any word for a server of your own that asks for none.")
    return ChatOpenAI(model=model, base_url=os.environ.get("OPENAI_BASE_URL") or OPENAI)


def reason(error: Exception) -> str:
    """The first paragraph of an error, which is where the libraries say what to do."""
    return " ".join(str(error).split("\n\n", maxsplit=1)[0].split())
