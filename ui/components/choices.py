"""Draw what answers the next message: the choice of agent and model, above the message field."""

from collections.abc import Mapping, Sequence

import streamlit as st

from app.schema import AgentInfo, ServiceInfo
from ui import texts
from ui.components.welcome import title_of
from ui.markdown import escape
from ui.streamlit_patches import is_history_navigation


def draw_choices(info: ServiceInfo) -> tuple[AgentInfo, str]:
    """Draw the choice of agent and model, and return what is chosen."""
    agents = {agent.key: agent for agent in info.agents}
    with st.container(horizontal=True, wrap=False, vertical_alignment="center", gap="small", key="choices"):
        agent = agents[draw_agent_choice(agents, info.default_agent)]
        model = draw_model_choice(info.models, info.default_model)
    if agent.error:
        st.warning(texts.agent_not_loaded(escape(agent.error)))
    return agent, model


def draw_agent_choice(agents: Mapping[str, AgentInfo], default: str) -> str:
    """Draw the choice of the agent by its title, and return its key, which is part of the address unless default.

    Streamlit's own binding would put the title into the address.
    """
    requested = st.query_params.get("agent")
    if requested in agents and ("agent" not in st.session_state or is_history_navigation()):
        st.session_state.agent = requested
    key = st.selectbox(
        texts.AGENT,
        agents,
        list(agents).index(default),
        key="agent",
        format_func=lambda key: title_of(agents[key]),
        filter_mode=None,
        label_visibility="collapsed",
    )
    if key != default:
        st.query_params["agent"] = key
    elif requested:
        del st.query_params["agent"]
    return key


def draw_model_choice(models: Sequence[str], default: str) -> str:
    """Draw the choice of the model, or the name of the only one, and return the one that answers."""
    if len(models) == 1:
        st.caption(texts.only_model(escape(default)), width="content")
        return default
    return st.selectbox(
        texts.MODEL,
        models,
        models.index(default),
        key="model",
        filter_mode=None,
        label_visibility="collapsed",
        bind="query-params",
    )
