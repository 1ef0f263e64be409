"""What secrets look like. Every expression is RE2's: none can backtrack, whatever the text."""

import re
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import re2

from telemetry.redact import binary

# What stands before a secret; in JSON it may be the end of an escape.
_BEFORE = r"(?P<before>^|\\[nrtbf]|\\u[0-9a-fA-F]{4}|[^0-9A-Za-z])"

_TOKENS = "|".join(
    (
        r"sk-(?:ant|lf|or|proj|svcacct|admin|live|test)-[\w-]{4,}",  # Anthropic, Langfuse, OpenRouter, OpenAI
        r"gsk_[0-9A-Za-z]{20,}|xai-[\w-]{20,}|r8_[0-9A-Za-z]{20,}|pplx-[0-9A-Za-z]{20,}|tvly-[\w-]{16,}",
        r"AIza[\w-]{30,}|ya29\.[\w-]{20,}|GOCSPX-[\w-]{20,}",  # Google
        r"(?:AKIA|ASIA|AROA|AIDA)[0-9A-Z]{16}",  # AWS
        r"gh[pousr]_[0-9A-Za-z]{20,}|github_pat_\w{20,}|gl(?:pat|dt|rt|cbt|ptt|oas|ft|soat)-[\w-]{16,}",
        r"xox[abeoprs]-[\w-]{10,}|xapp-[\w-]{10,}",  # Slack
        r"(?:sk|rk|pk)_(?:live|test)_[0-9A-Za-z]{10,}|whsec_[0-9A-Za-z+/=]{16,}",  # Stripe
        r"hf_[0-9A-Za-z]{20,}|api_org_[0-9A-Za-z]{20,}",  # Hugging Face
        r"lsv2_(?:pt|sk)_\w{16,}|ls__\w{16,}|npm_[0-9A-Za-z]{30,}|pypi-AgE[\w-]{20,}|dckr_pat_[\w-]{20,}",
        r"SG\.[\w-]{16,}\.[\w-]{16,}|dop_v1_[0-9a-f]{32,}|dapi[0-9a-f]{32}|hv[sb]\.[\w-]{20,}|lin_api_\w{20,}",
        r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{20,}|ntn_\w{20,}|AGE-SECRET-KEY-1[0-9A-Z]{20,}|sq0(?:atp|csp)-[\w-]{20,}",
        r"(?:bot)?[0-9]{8,10}:AA[\w-]{32,}",  # Telegram, in its addresses too
    )
)
_KEY = (
    r"passw(?:or)?ds?|passwort|passphrase|pass_?code|pwd|secrets?(?:[_-]?(?:access)?[_-]?keys?)?|api[_-]?keys?"
    r"|(?:access|private|signing|encryption|account|master)[_-]?keys?|token|credentials?|authori[sz]ation|cookies?"
    r"|(?:access|refresh|auth|bearer)[_-]?tokens|password[_-]?(?:confirm(?:ation)?|[0-9])"
)
_SHORT_KEY = "auth|jwt|otp|cvv|cvc|pass"
_BETWEEN = r"(?P<between>[\"'\\]*\s*(?:[:=]|%3D|=>)\s*)"
_QUOTED = r"\"(?:[^\"\\\r\n]|\\.)*\"?|\\+\"[^\"\\\r\n]*\\*\"?|\\*'[^'\\\r\n]*\\*'?"
_VALUE = rf"(?P<value>{_QUOTED}|[^\s\"'\\,;&<>{{}}()\[\]]+|[{{\[])"
_QUOTE = r"[\"'\\]+"
_SPACE = r"(?:\s|\\+[nrt])*"
_ANY_KEY = rf"(?P<name>[\w.-]*(?:{_KEY}|{_SHORT_KEY}))"
_PEM = r"(?:[0-9A-Za-z+/=\s:,-]|\\+[nrt])"


class BadPatternError(ValueError):
    """A pattern of the settings cannot be used; says why."""


@dataclass(frozen=True)
class Rule:
    """One kind of secret: where it may be, and what is left of a match; without a judge nothing but its kind."""

    kind: str
    pattern: str
    judge: Callable[[Any], str | None] | None = None

    def left_of(self, match: Any) -> str:
        """Return what a match becomes."""
        if self.judge is None:
            before = match.groupdict().get("before") or ""
            return f"{before}[redacted {self.kind}]"
        judged = self.judge(match)
        return match.group() if judged is None else judged


def looks_random(text: str) -> bool:
    """Whether text is hardly a word: it has a digit, or changes case within."""
    return bool(re.search(r"\d|[a-z][A-Z]", text))


def is_sensitive(name: str) -> bool:
    """Whether a field of this name holds a secret."""
    return bool(_SENSITIVE_NAME.search(name)) and not _HARMLESS_NAME.search(name)


def is_variable(text: str) -> bool:
    """Whether text is a variable of a shell, which is not its value."""
    return bool(_VARIABLE.fullmatch(text))


def compiled(pattern: str) -> Any:
    """Return an expression, compiled; raises `BadPatternError` for one that RE2 does not know."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        raise BadPatternError(f"{pattern!r} is not an RE2 expression: {said}") from None


def own(patterns: Sequence[str]) -> tuple[Rule, ...]:
    """Return the rules of somebody's own patterns."""
    return tuple(Rule("text", pattern) for pattern in patterns)


_SENSITIVE_NAME = re.compile(rf"(?i)(?:{_KEY}|(?:^|[_.-])(?:{_SHORT_KEY}))$")
_HARMLESS_NAME = re.compile(
    r"(?i)(?:^|[_.-])(?:first|last|next|prev|max|min|num|stop|eos|bos|pad|unk|per|page)[_-]?token$"
)
# A number of three digits is a secret only here.
_CARD_CODE = re.compile(r"(?i)(?:^|[_.-])cv[cv]$")
_LITERALS = {
    "none",
    "null",
    "true",
    "false",
    "undefined",
    "nil",
    "string",
    "str",
    "int",
    "bool",
    "...",
    "",
    "{",
    "[",
    "*",
    "***",
}


# What follows an option where text is about it.
_PROSE = re.compile(
    "(?i)(?:an?|and|are|argument|as|at|but|by|can|flag|for|from|has|if|in|instead|into|is|its?|may|must|not?|of|on"
    "|option|or|parameter|should|so|than|that|the|then|this|to|was|when|where|which|will|with|without|you)[.:`]?"
)
_VARIABLE = re.compile(r"\$\{?[A-Z_][A-Z0-9_]*\}?")

_LINE_END = re.compile(r"\s|\\+[rn]")


def _random(kind: str) -> Callable[[Any], str | None]:
    return lambda match: f"{match['before']}[redacted {kind}]" if looks_random(match["secret"]) else None


def _bearer(match: Any) -> str | None:
    scheme, secret = match["scheme"], match["secret"]
    hidden = _is_user_and_password(secret) if scheme.lower().startswith("basic") else looks_random(secret)
    return f"{match['before']}{scheme}[redacted token]" if hidden else None


def _is_user_and_password(secret: str) -> bool:
    found = re.match(r"[\w+/-]*", secret)
    secret = found.group() if found else ""
    try:
        return b":" in b64decode(secret + "=" * (-len(secret) % 4), validate=True)
    except NotBase64:
        return False


def _assigned(match: Any) -> str | None:
    name, between, given = match["name"], match["between"], match["value"]
    quote = given[: len(given) - len(given.lstrip("\"'\\"))]
    value = given.strip("\"'\\")
    if not is_sensitive(name) or says_nothing(name, value) or value.lower() == name.lower():
        return None
    if not (quote or between in ("=", "%3D") or looks_random(value)):
        return None
    return _put(match, name, given)


def _paired(match: Any) -> str | None:
    name, value = match["name"], match["value"]
    return _put(match, name, value) if value and is_sensitive(name) else None


def _behind(match: Any) -> str | None:
    given = match["value"]
    quote = given[: len(given) - len(given.lstrip("\"'\\"))]
    if not is_sensitive(match["name"]) or says_nothing(match["name"], given.strip("\"'\\")):
        return None
    return f"{match['before']}{quote}[redacted {_kind_of(match['name'])}]{quote}{match['between']}{match['name']}"


def _listed(match: Any) -> str | None:
    # Two words in brackets are a pair only in a list of them, or as bytes.
    return _paired(match) if match["list"] or match["between"].endswith("b") else None


def _option(match: Any) -> str | None:
    value = match["value"].strip("\"'\\")
    if value.startswith("-") or _PROSE.fullmatch(value) or is_variable(value):
        return None
    return _paired(match)


def _login(match: Any) -> str | None:
    return None if is_variable(match["value"]) else f"{match['before']}[redacted login]"


def _put(match: Any, name: str, given: str) -> str | None:
    quote = given[: len(given) - len(given.lstrip("\"'\\"))]
    if says_nothing(name, given.strip("\"'\\")):
        return None
    closing = quote if quote and given.endswith(quote) else ""
    return f"{match['before']}{name}{match['between']}{quote}[redacted {_kind_of(name)}]{closing}"


def says_nothing(name: str, value: str) -> bool:
    """Whether what stands under a sensitive name cannot be a secret: a type, a small number, a folder, nothing."""
    if value.isdigit() and len(value) < 4:
        return not _CARD_CODE.search(name)
    is_folder = name in ("PWD", "OLDPWD") and value.startswith("/")
    return is_folder or value.lower() in _LITERALS or value.startswith("[redacted")


def _kind_of(name: str) -> str:
    found = re.search(rf"(?i)(?:{_KEY})$", name)
    return found.group().lower().replace("_", " ").replace("-", " ") if found else "secret"


def _element(match: Any) -> str | None:
    name, value = match["name"], match["value"]
    return None if says_nothing(name, value) else f"<{name}>[redacted {_kind_of(name)}]</"


def _header(match: Any) -> str | None:
    named = match["name"] + match["between"]
    told = match["value"].split(" ")[0].lower() in ("bearer", "basic", "token", "digest", "apikey", "negotiate")
    hidden = told or "=" in match["value"] or looks_random(match["value"])
    return f"{named}[redacted header]" if hidden and not match["value"].startswith("[redacted") else None


def _parameter(match: Any) -> str | None:
    return f"{match['name']}[redacted parameter]" if looks_random(match["value"]) else None


def _file(match: Any) -> str | None:
    told = binary.base64(_LINE_END.sub("", match["secret"]))
    return None if told is None else match["before"] + told


def _card(match: Any) -> str | None:
    # Other numbers may stand around a card's, no further away than its own groups from each other.
    groups = re.split("([ -])", match["digits"])
    for first in range(0, len(groups), 2):
        for last in range(len(groups), first, -2):
            if _is_card("".join(groups[first:last:2])):
                around = "".join(groups[:first]), "".join(groups[last:])
                return f"{match['before']}{around[0]}[redacted card]{around[1]}{match['after']}"
    return None


def _is_card(text: str) -> bool:
    if not 13 <= len(text) <= 19 or text[0] not in "23456" or len(set(text)) < 2:
        return False
    digits = [int(digit) if at % 2 == 0 else sum(divmod(2 * int(digit), 10)) for at, digit in enumerate(text[::-1])]
    return sum(digits) % 10 == 0


SECRETS: tuple[Rule, ...] = (
    Rule("private key", rf"-----BEGIN [0-9A-Z ]*PRIVATE KEY[A-Z ]*-----(?:{_PEM}*?-----END [0-9A-Z ]+-----|{_PEM}*)"),
    Rule(
        "file", r"data:[\w.+-]+/[\w.+-]+(?:;[\w.=+-]+)*;base64,[0-9A-Za-z+/_=-]+", lambda m: binary.data_uri(m.group())
    ),
    Rule("file", rf"{_BEFORE}(?P<secret>[0-9A-Za-z+/_-]{{160,}}={{0,2}})", _file),
    Rule(
        "file",
        rf"{_BEFORE}(?P<secret>(?:[0-9A-Za-z+/]{{60,76}}(?:(?:\\+r)?\\+n|\r?\n)){{2,}}[0-9A-Za-z+/]{{0,76}}={{0,2}})",
        _file,
    ),
    Rule("token", rf"{_BEFORE}eyJ[\w=-]{{10,}}\.[\w=-]+(?:\.[\w=-]*)*"),
    Rule("key", rf"{_BEFORE}(?:{_TOKENS})"),
    Rule("key", rf"{_BEFORE}(?P<secret>sk-[\w-]{{20,}})", _random("key")),
    Rule("webhook", r"hooks\.slack\.com/(?:services|workflows|triggers)/[\w/-]+"),
    Rule(
        "token",
        rf"(?i){_BEFORE}(?P<scheme>(?:bearer|basic)(?:\s|%20|\+)+)(?P<secret>[\w.~+/-]{{8,}}=*)",
        _bearer,
    ),
    Rule(
        "login",
        r"(:(?:\\?/){2})(?:[^\s/?#:@\"'\\<>]*:[^\s/\"'\\<>]+|[^\s/?#:@\"'\\<>]+)@",
        lambda m: f"{m[1]}[redacted login]@",
    ),
    Rule(
        "header",
        r"(?i)(?P<name>(?:set-)?cookie|(?:proxy-)?authorization)(?P<between>[\"'\\]*\s*[:=]\s*[\"'\\]*)"
        r"(?P<value>[^\r\n\"'\\]+)",
        _header,
    ),
    Rule(
        "secret",
        rf"(?i)(?P<before>)(?P<name>[\w.-]*(?:{_KEY})){_BETWEEN}{_VALUE}",
        _assigned,
    ),
    Rule("secret", rf"(?i){_BEFORE}(?P<name>{_SHORT_KEY}){_BETWEEN}{_VALUE}", _assigned),
    # Without a value behind it, it says that there is a pair somewhere in this JSON.
    Rule(
        "secret",
        rf"(?i)(?P<before>{_QUOTE}(?:name|key|header|field){_QUOTE}{_SPACE}:{_SPACE}{_QUOTE}){_ANY_KEY}"
        rf"(?P<between>{_QUOTE}(?:{_SPACE},{_SPACE}{_QUOTE}value{_QUOTE}{_SPACE}:{_SPACE})?){_VALUE}?",
        _paired,
    ),
    Rule(
        "secret",
        rf"(?i)(?P<before>{_QUOTE}value{_QUOTE}{_SPACE}:{_SPACE})(?P<value>{_QUOTED})"
        rf"(?P<between>{_SPACE},[^{{}}]*?{_QUOTE}(?:name|key|header|field){_QUOTE}{_SPACE}:{_SPACE}{_QUOTE}){_ANY_KEY}",
        _behind,
    ),
    Rule(
        "secret",
        rf"(?i)(?P<before>(?P<list>[\[(,]{_SPACE})?[\[(]{_SPACE}b?{_QUOTE}){_ANY_KEY}"
        rf"(?P<between>{_QUOTE}{_SPACE},{_SPACE}b?)(?P<value>{_QUOTED})",
        _listed,
    ),
    Rule(
        "secret",
        rf"(?i)(?P<before>--){_ANY_KEY}(?P<between>{_QUOTE}{_SPACE},{_SPACE}|(?:\s|\\+[nrt])+){_VALUE}",
        _option,
    ),
    Rule(
        "login",
        r"(?P<before>curl\b(?:[^\r\n]|[\\,]\r?\n)*?(?:[\s\"']|\\+[nrt])(?:-[uU]|--(?:proxy-)?user)(?:\\+[nrt]|[\s=\"'\\,])*)"
        r"(?P<user>[^\s:\"'\\=]*):(?P<value>[^\s\"'\\]+)",
        _login,
    ),
    # It says that there may be such a list somewhere.
    Rule(
        "login",
        r"(?s)curl\b.*?(?:[\s\"']|\\+[nrt])(?:-[uU]|--(?:proxy-)?user)(?:\\+[nrt]|[\s=\"'\\,])*[^\s:\"'\\]*:",
        lambda _: None,
    ),
    Rule("secret", rf"(?i)<(?P<name>[\w.:-]*(?:{_KEY}))>(?P<value>[^<>]+)</", _element),
    Rule(
        "parameter",
        r"(?i)(?P<name>[?&;](?:key|sig|signature|code|auth|hmac|otp|jwt|sid|session_?id|x-(?:amz|goog)-[a-z-]+)=)"
        r"(?P<value>[^&\s\"'\\<>#]{6,})",
        _parameter,
    ),
    Rule(
        "card",
        r"(?P<before>^|\\[nrtbf]|\\u[0-9a-fA-F]{4}|[^0-9A-Za-z.])(?P<digits>[0-9](?:[ -]?[0-9]){12,23})"
        r"(?P<after>$|[^0-9A-Za-z.]|\.[^0-9]|\.$)",
        _card,
    ),
)
CONTACTS: tuple[Rule, ...] = (
    Rule("e-mail", r"[0-9A-Za-z._%+-]+@[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*\.[A-Za-z]{2,}"),
    Rule("phone", r"\+[0-9]{1,3}[ .()/-]{0,3}(?:[0-9][ .()/-]{0,2}){6,12}[0-9]"),
    Rule("phone", rf"{_BEFORE}(?:\([0-9]{{3}}\) ?|[0-9]{{3}}[ .-])[0-9]{{3}}[ .-][0-9]{{4}}\b"),
    Rule("phone", rf"{_BEFORE}0[0-9]{{2,4}}[ /-][0-9]{{3,4}}[ -]?[0-9]{{2,5}}\b"),
)
