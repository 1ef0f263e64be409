"""Planted secrets and ordinary text, for what must and must not leave."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from telemetry.export import otlp
from telemetry.messages_json import MessagesJson

LETTERS = "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xYzAbCdEfGhIjKlMn"
TOKEN = "ghp_" + LETTERS[:36]
HEX = "0123456789abcdef" * 4


def _joined(*parts: str) -> str:
    # In one piece they would be found by whoever scans repositories for leaked keys.
    return "".join(parts)


def _b64(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


BODY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7"
JWT = f"{_b64(json.dumps({'alg': 'HS256', 'typ': 'JWT'}))}.{_b64(json.dumps({'sub': '1234567890'}))}.{LETTERS[:43]}"
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 2).decode()
LINES = base64.encodebytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256))).decode()

# What is recognised by its looks, wherever it stands: the text, and what of it must not leave.
LOOKS: dict[str, tuple[str, str]] = {
    name: (text, text)
    for name, text in {
        "openai": _joined("sk-", LETTERS),
        "openai project": _joined("sk-", "proj-", LETTERS),
        "anthropic": _joined("sk-", "ant-api03-", LETTERS),
        "openrouter": _joined("sk-", "or-v1-", HEX),
        "langfuse": _joined("sk-", "lf-", "6d0ac96f-0fdb-4d94-9f4b-5d4a1f9b8a33"),
        "google": _joined("AIza", LETTERS[:35]),
        "google oauth": _joined("ya29.", LETTERS),
        "aws id": _joined("AKIA", "IOSFODNN7EXAMPLE"),
        "github": _joined("ghp_", LETTERS[:36]),
        "github app": _joined("ghs_", LETTERS[:36]),
        "github fine": _joined("github_", "pat_", LETTERS),
        "gitlab": _joined("glpat-", LETTERS[:20]),
        "slack": _joined("xoxb-", "123456789012-", LETTERS[:24]),
        "stripe": _joined("sk_", "live_", LETTERS[:24]),
        "stripe hook": _joined("whsec_", LETTERS[:32]),
        "hugging face": _joined("hf_", LETTERS[:34]),
        "groq": _joined("gsk_", LETTERS),
        "langsmith": _joined("lsv2_", "pt_", HEX[:32]),
        "sendgrid": _joined("SG.", LETTERS[:22], ".", LETTERS[:43]),
        "npm": _joined("npm_", LETTERS[:36]),
        "jwt": JWT,
        "card": "4111 1111 1111 1111",
        "amex": "378282246310005",
    }.items()
} | {
    "bearer": (f"Bearer {LETTERS[:24]}", LETTERS[:24]),
    "basic": (f"Basic {base64.b64encode(b'ada:lovelace').decode()}", base64.b64encode(b"ada:lovelace").decode()),
    "private key": (f"-----BEGIN PRIVATE KEY-----\n{BODY}\n{BODY}\n-----END PRIVATE KEY-----", BODY),
    "cut private key": (f"-----BEGIN RSA PRIVATE KEY-----\n{BODY}", BODY),
    "postgres": ("postgresql+psycopg://app:open.sesame@db.internal:5432/app", "open.sesame"),
    "redis": ("redis://:open-sesame@cache:6379/0", "open-sesame"),
    "pwd": ("uid=sa;pwd=opensesame;", "opensesame"),
    "env pwd": ("UID=sa;PWD=opensesame;", "opensesame"),
    "element": ("<db:password>opensesame</db:password>", "opensesame"),
    "telegram": (f"https://api.telegram.org/bot1234567890:AA{LETTERS[:33]}/getMe", LETTERS[:33]),
    "odbc": ("Server=db;Database=app;User Id=app;Password=open_sesame1;", "open_sesame1"),
    "clone": (_joined("https://", "deploy-abc123", "@git.example.org/app.git"), "deploy-abc123"),
    "query": ("https://api.example.org/v1?q=cats&api_key=opensesame&page=2", "opensesame"),
    "signed": ("https://b.s3.amazonaws.com/f?X-Amz-Signature=0123456789abcdef", "0123456789abcdef"),
    "env": ("DATABASE_PASSWORD=opensesame", "opensesame"),
    "yaml": ("client_secret: 'opensesame'", "opensesame"),
    "python": ('connect(user="ada", password="open sesame")', "open sesame"),
    "header": (f"Authorization: Token {LETTERS[:16]}", LETTERS[:16]),
    "cookie": ("Cookie: theme=dark; sid=opensesame", "opensesame"),
    "pair": ('Send {"name": "db_password", "value": "opensesame"} to it', "opensesame"),
    "pair by key": ('{"type": "text", "value": "opensesame", "key": "x-api-key"}', "opensesame"),
    "pairs": ('with [["accept", "*/*"], ["x-api-key", "opensesame"]]', "opensesame"),
    "raw headers": ("[(b'host', b'a.org'), (b'cookie', b'theme=dark; sid=opensesame')]", "opensesame"),
    "option": ("psql --username app --password opensesame -c 'SELECT 1'", "opensesame"),
    "option with a sign": ("run --token=opensesame --verbose", "opensesame"),
    "arguments": ("['run', '--api-key', 'opensesame']", "opensesame"),
    "curl": ("curl -s -u ada:opensesame https://a.org/x", "opensesame"),
    "curl on lines": ('curl -X POST \\\n  --user "ada:opensesame" \\\n  https://a.org/x', "opensesame"),
    "curl with arguments": ('["curl", "-u", "ada:opensesame", "https://a.org/x"]', "opensesame"),
    "curl with arguments in lines": ('[\n  "/usr/bin/curl",\n  "--user",\n  "ada:opensesame"\n]', "opensesame"),
    "curl with one argument": ('["sudo", "curl", "-uada:opensesame"]', "opensesame"),
    "curl in a tool's input": ('{"command": "curl", "args": ["-s", "-U", ":opensesame"]}', "opensesame"),
    "curl in Python": ("run(['curl', '-s', '-u', 'ada:opensesame'])", "opensesame"),
    "image": (f"data:image/png;base64,{PNG}", PNG[40:80]),
    "base64": (PNG, PNG[40:80]),
    "base64 in lines": (LINES, LINES[100:140]),
    "escaped": ('{"note": "\\u0073k-ant-api03-' + LETTERS + '"}', LETTERS),
}

# What is recognised by the name of its field.
NAMES = (
    "password", "db_password", "Password", "passwd", "api_key", "apiKey", "x-api-key", "OPENAI_API_KEY", "secret",
    "client_secret", "clientSecret", "token", "access_token", "refreshToken", "authorization", "Proxy-Authorization",
    "cookie", "Set-Cookie", "private_key", "credentials", "aws_secret_access_key", "connection.password", "auth", "pwd",
    "passwords", "api_keys", "secrets", "cookies", "password2", "password_confirmation",
)  # fmt: skip
OPEN_SESAME = "open sesame, please"

TRACE, SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
CONTEXT = SpanContext(TRACE, SPAN, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def finished(name: str = "a span", status: Status | None = None, **given: Any) -> ReadableSpan:
    """A finished span of the SDK."""
    attributes = {"openinference.span.kind": "CHAIN", **given.pop("attributes", {})}
    resource = Resource({"service.name": "shop", **given.pop("resource", {})})
    return ReadableSpan(
        name,
        CONTEXT,
        attributes=attributes,
        resource=resource,
        status=status or Status(),
        start_time=1,
        end_time=2,
        **given,
    )


def encoded(span: ReadableSpan) -> bytes:
    """The span as it would leave without redaction."""
    return otlp.encode(otlp.RedactedSpan.of(otlp.from_sdk(span)))


def _constructor(kind: str, content: Any) -> dict[str, Any]:
    kwargs = {"content": content, "type": kind.removesuffix("Message").lower()}
    return {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", kind], "kwargs": kwargs}


def _model(content: str) -> ReadableSpan:
    asked = json.dumps({"messages": [[_constructor("HumanMessage", content)]]})
    said = json.dumps({"generations": [[{"text": content, "message": _constructor("AIMessage", content)}]]})
    kind = {"openinference.span.kind": "LLM", "llm.output_messages.0.message.content": content}
    return finished("model", attributes={**kind, "input.value": asked, "output.value": said})


def conversation(*contents: str) -> MessagesJson:
    """Messages of a person as the recorder joins them."""
    listed = [part for content in contents for part in (",", json.dumps({"role": "user", "content": content}))]
    return MessagesJson(("[", *listed[1:], "]"))


def _said(content: str) -> ReadableSpan:
    """A conversation as the recorder has it: in parts, of which the others are in every span."""
    asked = conversation("Be brief.", content)
    return finished("model", attributes={"openinference.span.kind": "LLM", "input.value": asked, "output.value": asked})


def _tool(content: str) -> ReadableSpan:
    result = json.dumps({"type": "tool", "data": {"content": content, "type": "tool", "tool_call_id": "c"}})
    kind = {"openinference.span.kind": "TOOL", "tool.name": "shell"}
    return finished("shell", attributes={**kind, "input.value": content, "output.value": result})


def _node(content: str) -> ReadableSpan:
    human = {"type": "human", "data": {"content": content, "type": "human", "id": "1"}}
    return finished("node", attributes={"input.value": json.dumps({"messages": [human], "draft": {"text": content}})})


def _raised(content: str) -> ReadableSpan:
    about = {"exception.type": "ValueError", "exception.message": content, "exception.stacktrace": f"raise {content}"}
    return finished(status=Status(StatusCode.ERROR, content), events=(Event("exception", about, 1),))


def _nested(content: str) -> str:
    return json.dumps({"request": {"body": json.dumps({"lines": [f"first\n{content}\nlast"]})}})


# Each makes a span that holds a text somewhere.
PLACES: dict[str, Callable[[str], ReadableSpan]] = {
    "message": _model,
    "part": _said,
    "tool": _tool,
    "state": _node,
    "exception": _raised,
    "status": lambda text: finished(status=Status(StatusCode.ERROR, text)),
    "name": lambda text: finished(text),
    "attribute": lambda text: finished(attributes={"note": f"it is {text}"}),
    "own line": lambda text: finished(attributes={"note": f"first\n{text}\nlast"}),
    "key": lambda text: finished(attributes={text: 1}),
    "list": lambda text: finished(attributes={"db.parameters": ["a", text]}),
    "map": lambda text: finished(attributes={"given": {"deep": {"deeper": [text]}}}),
    "nested json": lambda text: finished(attributes={"input.value": _nested(text)}),
    "broken json": lambda text: finished(attributes={"input.value": _nested(text)[:-1]}),
    "file": lambda text: finished(attributes={"file.name": f"{text}.txt"}),
    "url": lambda text: finished(
        "GET", kind=SpanKind.CLIENT, attributes={"http.request.method": "GET", "url.full": f"http://a.org/x?q={text}"}
    ),
    "header": lambda text: finished(attributes={"http.request.header.x-forwarded": (text,)}),
    "event": lambda text: finished(events=(Event("happened", {"what": text}, 1),)),
    "event name": lambda text: finished(events=(Event(text, {}, 1),)),
    "link": lambda text: finished(links=(Link(CONTEXT, {"why": text}),)),
    "resource": lambda text: finished(resource={"process.command_args": ("run", text)}),
}


def _made(**changes: Any) -> ReadableSpan:
    given: dict[str, Any] = {
        "name": "a span",
        "context": CONTEXT,
        "attributes": {},
        "resource": Resource({"service.name": "shop"}),
        "status": Status(),
        "start_time": 1,
        "end_time": 2,
    }
    return ReadableSpan(**{**given, **changes})


def _context(value: str) -> SpanContext:
    state = TraceState([("vendor", value)])
    return SpanContext(CONTEXT.trace_id, CONTEXT.span_id, False, TraceFlags(1), state)


# What else of a span may hold text.
MORE_PLACES: dict[str, Callable[[str], ReadableSpan]] = {
    **PLACES,
    "scope": lambda text: _made(instrumentation_scope=InstrumentationScope(f"lib-{text}")),
    "scope version": lambda text: _made(instrumentation_scope=InstrumentationScope("lib", f"1-{text}")),
    "scope attribute": lambda text: _made(instrumentation_scope=InstrumentationScope("lib", "1", None, {"a": text})),
    "scope attribute's name": lambda text: _made(instrumentation_scope=InstrumentationScope("l", "1", None, {text: 1})),
    "trace state": lambda text: _made(context=_context(text)),
    "resource's key": lambda text: _made(resource=Resource({text: "x"})),
    "event's key": lambda text: finished(events=(Event("happened", {text: 1}, 1),)),
    "link's key": lambda text: finished(links=(Link(CONTEXT, {text: "x"}),)),
    "bytes": lambda text: finished(attributes={"raw": text.encode()}),
    "path of an address": lambda text: finished(
        "POST", kind=SpanKind.CLIENT, attributes={"http.request.method": "POST", "url.full": f"http://a.org/s/{text}/x"}
    ),
}

FEATURES: dict[str, Callable[[ReadableSpan], dict[str, Any]]] = {
    "nothing": lambda _: {},
    "an event": lambda span: {"events": (*span.events, Event("cache miss"))},
    "an exception": lambda span: {"events": (*span.events, Event("exception", {"exception.message": "no"}))},
    "a link": lambda span: {"links": (*span.links, Link(CONTEXT, {"why": "because"}))},
    "a failure": lambda span: {"status": Status(StatusCode.ERROR, span.status.description or "no")},
    "a long text": lambda span: {"attributes": {**(span.attributes or {}), "long": "a b " * 13_000}},
    "a photo": lambda span: {"attributes": {**(span.attributes or {}), "photo": (LETTERS + "+/") * 200}},
    "a conversation": lambda span: {"attributes": {**(span.attributes or {}), "said": conversation("hello", "there")}},
    "another secret": lambda span: {"attributes": {**(span.attributes or {}), "password": "open sesame"}},
}


def with_changes(span: ReadableSpan, **changes: Any) -> ReadableSpan:
    """The span with some of its parts replaced."""
    return ReadableSpan(
        **{
            "name": span.name,
            "context": span.context,
            "kind": span.kind,
            "attributes": span.attributes,
            "events": tuple(span.events),
            "links": tuple(span.links),
            "status": span.status,
            "resource": span.resource,
            "instrumentation_scope": span.instrumentation_scope,
            "start_time": 1,
            "end_time": 2,
            **changes,
        }
    )


# Settings of what leaves.
MODES: dict[str, dict[str, Any]] = {
    "default": {},
    "openinference": {"TELEMETRY_SHAPE": "openinference"},
    "genai": {"TELEMETRY_SHAPE": "genai", "TELEMETRY_GENAI_NAMES": "true"},
    "all": {"TELEMETRY_SHAPE": "all"},
    "contacts": {"TELEMETRY_REDACT_CONTACTS": "true", "TELEMETRY_USER_HASH_KEY": "k"},
    "metadata": {"TELEMETRY_CONTENT": "metadata-only"},
    "hidden": {"OPENINFERENCE_HIDE_INPUTS": "true", "OPENINFERENCE_HIDE_OUTPUTS": "true"},
    "short": {"TELEMETRY_MAX_VALUE_BYTES": 200, "TELEMETRY_MAX_SPAN_BYTES": 2_000},
}
ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": lambda text: text,
    "percent": lambda text: quote(f" {text}", safe=""),
    "twice": lambda text: quote(quote(f"={text}", safe=""), safe=""),
    "entity": lambda text: f"&quot;{text}&quot;",
    # Too early for its first line to be recognised by itself.
    "wrapped": lambda text: f"it is {text[:20]}\n{text[20:]} and more",
}


# Each makes a span that holds a secret under a name.
NAMED_PLACES: dict[str, Callable[[str, Any], ReadableSpan]] = {
    "attribute": lambda name, secret: finished(attributes={name: secret}),
    "header": lambda name, secret: finished(attributes={f"http.request.header.{name}": (secret,)}),
    "resource": lambda name, secret: finished(resource={name: secret}),
    "map": lambda name, secret: finished(attributes={"given": {"deep": {name: secret}}}),
    "event": lambda name, secret: finished(events=(Event("happened", {name: secret}, 1),)),
    "json": lambda name, secret: finished(attributes={"input.value": json.dumps({"user": "ada", name: secret})}),
    "deep json": lambda name, secret: finished(attributes={"output.value": json.dumps([{"a": {name: [secret]}}])}),
    "json in json": lambda name, secret: _tool(json.dumps({"body": json.dumps({name: secret})})),
    "json in a part": lambda name, secret: _said("Use this: " + json.dumps({name: secret})),
    "json in text": lambda name, secret: _model("Use this: " + json.dumps({name: secret})),
    "broken json": lambda name, secret: finished(attributes={"input.value": json.dumps({"a": 1, name: secret})[:-1]}),
}


@dataclass(frozen=True)
class Plant:
    """A span with a secret in it, and what must not be seen of it."""

    where: str
    span: ReadableSpan
    secret: str


def plants() -> list[Plant]:
    """Every kind of secret in every kind of place."""
    by_looks = [
        Plant(f"{kind} in {place}", make(text), secret)
        for kind, (text, secret) in LOOKS.items()
        for place, make in PLACES.items()
        # A file name or a query that holds another URL, or lines, is none.
        if not (place in ("file", "url") and ({"\n", "/", " "} & set(text)))
    ]
    by_name = [
        Plant(f"{name} as {place}", make(name, OPEN_SESAME), OPEN_SESAME)
        for name in NAMES
        for place, make in NAMED_PLACES.items()
    ]
    return [*by_looks, *by_name]


ORDINARY = (
    "The token bucket refills every second; a token is 4 characters on average.",
    "Use max_tokens: 512 and total_tokens: 1024, prompt_tokens=17.",
    '{"usage": {"input_tokens": 19, "output_tokens": 1, "total_tokens": 20, "token_count": 20}}',
    '{"max_tokens": 512, "stop_token": "<|end|>", "tokenizer": "cl100k", "first_token_ms": 120}',
    "Password: required. Please choose a password that you can remember.",
    "The secret of success: work. A secret: nobody knows.",
    "An api key identifies the caller; put your API key: into the settings.",
    "def login(user: str, password: str) -> Token: ...",
    "password=None, token=token, secret=secret",
    '{"type": "object", "properties": {"password": {"type": "string", "description": "The password"}}}',
    "Basic understanding of calculus; the bearer of this letter; bearer bonds; a Basic JavaScript course.",
    "Call me at 12:30 on 2026-11-22, room 4711, order 12345678, ISBN 978-3-16-148410-0.",
    "3f2504e0-4f89-11d3-9a0c-0305e82c3301 is a UUID and 9f86d081884c7d659a2feaa0c55ad015 a hash.",
    "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "https://example.org/path/@user?page=2&sort=name&code=42#top",
    "mailto:ada@example.org or git@github.com:org/repo.git",
    "task-management, risk-assessment-for-the-new-building-plan, sk-circle-fade-dot-animation",
    "AKIA is a prefix, and so are ghp_ and sk- and xoxb-.",
    "Die Straße nach Köln — 日本語のテキスト, العربية, 🎉🎉🎉",
    "1795388189717945420 1795388189718945420 3.14159265358979323846 2.718281828459045",
    "[1, 2.5, -3e10, 4000000000000, 1795388189717945420]",
    "SELECT name, token_id FROM users WHERE id = $1 -- the cookie jar",
    "PWD=/home/ada OLDPWD=/tmp and <token/> or <secret></secret>; cookies: two, secrets: none, passwords: 3",
    "We baked a cookie: chocolate. Authorization: see the next chapter.",
    "tests pass: 12, fail: 3; author: Ada; signature: (a, b) -> c",
    "a" * 400,
    "https://hooks.example.org/services/T000/B000 and https://user.example.org:8443/a",
    "for token in tokens: print(token)",
    'required: ["password", "email"] and for name in ("password", "token"): print(name)',
    '{"name": "password", "type": "string"}, {"name": "city", "value": "Ulm"}, {"name": "get_token", "args": {}}',
    "Use the --password option, or --token to log in; docker run -u 1000:1000 app; --password $DB_PASSWORD",
    "curl -s https://a.org/x?y=1 -o file -u ada",
    '["docker", "run", "-u", "1000:1000", "curlimages/curl", "-u", "ada", "-o", "https://a.org"]',
    '["curl", "-u", "ada:$PASSWORD", "https://a.org:8080", "-H", "accept: */*", "--negotiate", "-u", ":"]',
    '{"command": "docker", "args": ["run", "-u", "1000:1000", "app"], "then": "curl https://a.org -u ada"}',
    "The quick brown fox jumps over the lazy dog. " * 40,
)
