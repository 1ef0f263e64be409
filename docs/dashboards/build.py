"""Write `agents.json`, the dashboard for Grafana, from the list of its panels: `make docs`."""

import json
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("agents.json")
SOURCE = {"type": "prometheus", "uid": "${source}"}
JOB = 'job=~"$job"'
WIDTH, HEIGHT = 12, 8


def share(quantile: float, metric: str, by: str) -> str:
    """Return the expression of a quantile of a histogram."""
    return f"histogram_quantile({quantile}, sum by ({by}, le) (rate({metric}_bucket{{{JOB}}}[$__rate_interval])))"


def rate(metric: str, by: str, where: str = "") -> str:
    """Return the expression of a rate a second."""
    return f"sum by ({by}) (rate({metric}{{{JOB}{where}}}[$__rate_interval]))"


# Row -> panels: title, unit, and an expression for each legend.
ROWS: dict[str, list[tuple[str, str, dict[str, str]]]] = {
    "Latency": [
        (
            "Turns: duration",
            "s",
            {
                "p50 {{gen_ai_agent_name}}": share(0.5, "gen_ai_invoke_agent_duration_seconds", "gen_ai_agent_name"),
                "p95 {{gen_ai_agent_name}}": share(0.95, "gen_ai_invoke_agent_duration_seconds", "gen_ai_agent_name"),
            },
        ),
        (
            "Models: time to first chunk, p95",
            "s",
            {
                "{{gen_ai_request_model}}": share(
                    0.95, "gen_ai_client_operation_time_to_first_chunk_seconds", "gen_ai_request_model"
                )
            },
        ),
        (
            "Models: duration, p95",
            "s",
            {
                "{{gen_ai_request_model}}": share(
                    0.95, "gen_ai_client_operation_duration_seconds", "gen_ai_request_model"
                )
            },
        ),
        (
            "Tools: duration, p95",
            "s",
            {"{{gen_ai_tool_name}}": share(0.95, "gen_ai_execute_tool_duration_seconds", "gen_ai_tool_name")},
        ),
        (
            "Requests: duration, p95",
            "s",
            {"{{http_route}}": share(0.95, "http_server_request_duration_seconds", "http_route")},
        ),
    ],
    "Tokens and cost": [
        (
            "Tokens a second",
            "short",
            {
                "{{gen_ai_request_model}} {{gen_ai_token_type}}": rate(
                    "gen_ai_client_token_usage_sum", "gen_ai_request_model, gen_ai_token_type"
                )
            },
        ),
        (
            "Tokens of a call, p95",
            "short",
            {"{{gen_ai_token_type}}": share(0.95, "gen_ai_client_token_usage", "gen_ai_token_type")},
        ),
        (
            "Dollars an hour",
            "currencyUSD",
            {"{{gen_ai_request_model}}": f"3600 * {rate('agent_cost_total', 'gen_ai_request_model')}"},
        ),
    ],
    "Turns, errors and feedback": [
        ("Turns a second, by status", "short", {"{{turn_status}}": rate("agent_turns_total", "turn_status")}),
        (
            "Errors a second",
            "short",
            {
                "turn {{error_type}}": rate(
                    "gen_ai_invoke_agent_duration_seconds_count", "error_type", ', error_type!=""'
                ),
                "model {{error_type}}": rate(
                    "gen_ai_client_operation_duration_seconds_count", "error_type", ', error_type!=""'
                ),
                "tool {{error_type}}": rate(
                    "gen_ai_execute_tool_duration_seconds_count", "error_type", ', error_type!=""'
                ),
            },
        ),
        (
            "Scores: mean",
            "short",
            {
                "{{gen_ai_evaluation_name}}": f"{rate('agent_score_sum', 'gen_ai_evaluation_name')} / "
                f"{rate('agent_score_count', 'gen_ai_evaluation_name')}"
            },
        ),
        (
            "Scores a second",
            "short",
            {"{{gen_ai_evaluation_name}}": rate("agent_score_count", "gen_ai_evaluation_name")},
        ),
    ],
    "The pipeline": [
        (
            "Spans that wait",
            "short",
            {
                "not on disk, {{instance}}": f"telemetry_queue_spans{{{JOB}}}",
                "not accepted, {{instance}}": f"telemetry_spool_spans{{{JOB}}}",
            },
        ),
        ("Oldest of them", "s", {"{{instance}}": f"telemetry_spool_age_seconds{{{JOB}}}"}),
        (
            "Spans a second",
            "short",
            {
                "sent": rate("telemetry_spans_sent_total", "job"),
                "refused": rate("telemetry_spans_refused_total", "job"),
                "dead": rate("telemetry_spans_dead_total", "job"),
                "dropped: {{reason}}": rate("telemetry_spans_dropped_total", "reason"),
            },
        ),
        (
            "From the end of a span to the disk",
            "s",
            {"{{quantile}}": f"max by (quantile) (telemetry_lag_seconds{{{JOB}}})"},
        ),
        ("Failures of tracing", "short", {"{{action}}": f"sum by (action) (telemetry_failures_total{{{JOB}}})"}),
    ],
}


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    return {
        "uid": "agent-telemetry",
        "title": "Agents",
        "tags": ["agents", "opentelemetry"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_source(), _job()]},
        "panels": _panels(),
    }


def _source() -> dict[str, Any]:
    return {"name": "source", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _job() -> dict[str, Any]:
    query = "label_values(agent_turns_total, job)"
    more = {"includeAll": True, "multi": True, "refresh": 2, "current": {"text": "All", "value": "$__all"}}
    return {"name": "job", "label": "Service", "type": "query", "datasource": SOURCE, "query": query, **more}


def _panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = []
    y = 0
    for row, charts in ROWS.items():
        panels.append({"type": "row", "title": row, "id": len(panels) + 1, **_at(0, y, 2 * WIDTH, 1), "panels": []})
        y += 1
        for at, (title, unit, expressions) in enumerate(charts):
            place = _at(at % 2 * WIDTH, y + at // 2 * HEIGHT, WIDTH, HEIGHT)
            panels.append({"id": len(panels) + 1, **place, **_chart(title, unit, expressions)})
        y += (len(charts) + 1) // 2 * HEIGHT
    return panels


def _chart(title: str, unit: str, expressions: dict[str, str]) -> dict[str, Any]:
    targets = [
        # Exemplars are drawn as dots, which lead to their traces.
        {
            "refId": chr(65 + at),
            "expr": expr,
            "legendFormat": legend,
            "exemplar": "_bucket" in expr,
            "datasource": SOURCE,
        }
        for at, (legend, expr) in enumerate(expressions.items())
    ]
    field = {"defaults": {"unit": unit, "min": 0}, "overrides": []}
    return {"type": "timeseries", "title": title, "datasource": SOURCE, "fieldConfig": field, "targets": targets}


def _at(x: int, y: int, width: int, height: int) -> dict[str, Any]:
    return {"gridPos": {"x": x, "y": y, "w": width, "h": height}}


if __name__ == "__main__":
    PAGE.write_text(json.dumps(dashboard(), indent=1) + "\n")
