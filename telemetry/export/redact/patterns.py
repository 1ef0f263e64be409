"""What secrets look like. Every expression is RE2's: none can backtrack, whatever the text.

One set of all expressions tells in one pass which rules may apply. An expression that counts ("twenty or more of
these"), or that goes on behind its first words, multiplies the states of the whole set. Such a rule has a second
expression for the set, its trigger, and a precheck where the trigger says little.
"""

import re
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import re2

from telemetry.export.redact import binary

# What stands before a secret; in JSON it may be the end of an escape.
_HEX_DIGIT = "[0-9a-fA-F]"
_BEFORE = rf"(?P<before>^|\\[nrtbf]|\\u{_HEX_DIGIT * 4}|[^0-9A-Za-z])"

# Keys with a form of their own: how they begin, and how they go on. docs/privacy.md lists whose they are.
_PREFIXED: tuple[tuple[str, str], ...] = (
    (r"sk-(?:ant|lf|or|proj|svcacct|admin|live|test)-", r"[\w-]{4,}"),
    (r"(?:gsk|r8|fw)_", r"[0-9A-Za-z]{20,}"),
    (r"(?:tgp_v1|jina|fc|e2b|pcsk|phc|phx)_", r"[\w-]{20,}"),
    (r"(?:xai|pplx|csk|jina)-|tvly-(?:(?:dev|prod)-)?", r"[0-9A-Za-z]{20,}"),
    (r"(?:nvapi|pa)-", r"[\w-]{40,}"),
    (r"key-", r"[0-9a-f]{32}"),
    (r"AIza", r"[\w-]{30,}"),
    (r"ya29\.|GOCSPX-|1//0", r"[\w-]{20,}"),
    (r"A(?:KIA|SIA|ROA|IDA|BIA|CCA)", r"[0-9A-Z]{16,}"),
    (r"ABSK|bedrock-api-key-", r"[0-9A-Za-z+/=]{20,}"),
    (r"LTAI", r"[0-9A-Za-z]{17,}"),
    (r"gh[pousr]_", r"[0-9A-Za-z]{20,}"),
    (r"github_pat_", r"\w{20,}"),
    (r"gl(?:pat|dt|rt|cbt|ptt|oas|ft|soat|ffct|imt|agent)-", r"[\w-]{16,}(?:\.[0-9a-z]{2}\.[0-9a-z]{7,})?"),
    (r"GR1348941", r"[\w-]{20,}"),
    (r"xox[abeoprs]-", r"[0-9][\w-]{9,}|[ar]-[0-9A-Za-z]{8,}"),
    (r"xoxe\.xox[bp]-|xapp-", r"[\w-]{10,}"),
    (r"(?:sk|rk|pk)_(?:live|test|prod)_", r"[0-9A-Za-z]{10,}"),
    (r"whsec_", r"[0-9A-Za-z+/=]{16,}"),
    (r"hf_|api_org_", r"[0-9A-Za-z]{34}\b"),
    (r"lsv2_(?:pt|sk)_|ls__", r"\w{16,}"),
    (r"npm_", r"[0-9A-Za-z]{30,}"),
    (r"pypi-AgE|dckr_(?:pat|oat)_", r"[\w-]{20,}"),
    (r"SG\.", r"[\w=-]{16,}\.[\w=-]{16,}|[\w=.-]{60,}"),
    (r"do[opr]_v1_", r"[0-9a-f]{32,}"),
    (r"dapi", r"[0-9a-f]{32}(?:-[0-9])?"),
    (r"hv[sbr]\.", r"[\w-]{20,}"),
    (r"lin_(?:api|oauth)_|ntn_|pnu_|rdme_|figd_", r"\w{20,}"),
    (r"shp(?:at|ca|pa|ss)_", r"[0-9a-fA-F]{20,}"),
    (r"AGE-SECRET-KEY-1", r"[0-9A-Z]{20,}"),
    (r"sq0(?:atp|csp|idp)-|EAAA", r"[\w-]{20,}"),
    (r"EAACEdEose0cBA|EAAM|EAAB", r"[0-9A-Za-z]{20,}"),
    (r"gl(?:c|sa)_", r"[0-9A-Za-z+/=_]{24,}"),
    (r"pscale_(?:pw|tkn|oauth)_", r"[\w=.-]{20,}"),
    (r"fm(?:1[ar]|2)_|fo1_", r"[0-9A-Za-z+/=_-]{20,}"),
    (r"shippo_(?:live|test)_|pul-", r"[0-9a-f]{32,}"),
    # Longer ones are parts of a file in base64.
    (r"EZ[AT]K", r"[0-9A-Za-z]{54}(?![0-9A-Za-z+/])"),
    # What goes on is the name of a file.
    (r"ico-", r"[0-9A-Za-z]{32}(?!\.?\w)"),
    (r"HRKU-|NR(?:AK|II|JS|RA)-|PMAK-|CLOJARS_|rubygems_|tfp_|sgp_|dnkey-|sbp_|nfp_", r"[\w=-]{16,}"),
    (r"dp\.(?:pt|st|ct|sa|scim|audit)\.", r"[\w.-]{30,}"),
    (r"dt0[a-z][0-9]{2}\.", r"[0-9A-Za-z]{24}\.[0-9A-Za-z]{40,}"),
    (
        r"duffel_(?:live|test)_|fio-u-|xkeysib-|xsmtpsib-|sntry[su]_|ops_eyJ|sm_[aps]at_|ATATT3|ATCTT3|ATBB",
        r"[\w=/+-]{12,}",
    ),
    (r"FLW(?:PUBK|SECK)(?:_TEST)?-", r"[0-9a-f]{12,}(?:-X)?"),
    (r"pat[0-9A-Za-z]{14}\.", r"[0-9a-f]{40,}"),
    (r"pat\.", r"[\w-]{22}\.[0-9A-Za-z]{24}\.[0-9A-Za-z]{20}"),
    (r"[ps]k\.", r"[0-9A-Za-z]{50,}\.[0-9A-Za-z]{20,}"),
    (r"(?:sc|ext|scauth|authress)_", r"[0-9A-Za-z]{5,30}\.[0-9A-Za-z]{4,6}\.(?:acc)[_-][\w-]{10,32}\.[\w+/=-]{30,}"),
    (r"access-(?:sandbox|development|production)-", r"[0-9a-f-]{36}"),
    (r"tk-us-", r"[\w-]{40,}"),
    (r"sha256~", r"[\w-]{40,}"),
    (r"SK", r"[0-9a-f]{32}"),
    (r"A3-", r"[0-9A-Z]{6}-(?:[0-9A-Z]{11}|[0-9A-Z]{6}-[0-9A-Z]{5})-[0-9A-Z]{5}-[0-9A-Z]{5}-[0-9A-Z]{5}"),
    (r"v1\.0-", r"[0-9a-f]{24}-[0-9a-f]{100,}"),
    (r"AKCp|cmVmd", r"[0-9A-Za-z]{55,}"),
    (r"AQVN|YC[A-Z]|t1\.", r"[\w=.-]{35,}"),
    (r"s-s4t2(?:ud|af)-", r"[0-9a-f]{60,}"),
    (r"p8e-", r"[0-9A-Za-z]{32}"),
    (r"pubkey-", r"[0-9a-f]{32}"),
    (r"AAAAAAAAAAAAAAAAAAAAAA", r"[0-9A-Za-z%]{30,}"),
)
# Behind each of them but the first, eight of these at least.
_PREFIXES = rf"{_PREFIXED[0][0]}|(?:{'|'.join(prefix for prefix, _ in _PREFIXED[1:])})[\w+/=.~%-]{{8}}"
# RE2 would count each of them at once; from the place of a prefix on, none can backtrack for long.
_TOKEN = re.compile(_BEFORE + "(?:" + "|".join(f"(?:{prefix})(?:{rest})" for prefix, rest in _PREFIXED) + ")", re.ASCII)

_KEY = (
    r"passw(?:or)?ds?|pass_?phrase|pass_?code|pwd|secrets?(?:[_-]?(?:access)?[_-]?keys?)?|api[_ -]?keys?"
    r"|(?:access|private|signing|encryption|account|master|license)[_ -]?keys?|token|credentials?|authori[sz]ation"
    r"|cookies?|(?:access|refresh|auth|bearer)[_-]?tokens|password[_-]?(?:confirm(?:ation)?|[0-9])"
    r"|passwort|kennwort|contrase[nñ]a|senha|mot[_ -]?de[_ -]?passe|wachtwoord|has[lł]o|пароль|密码|密碼|パスワード"
    r"|contribsys__com"
)
_SHORT_KEY = "auth|jwt|otp|cvv|cvc|pass"
_QUOTES = r"[\"'`\\]"
_TYPE = r"(?::?\s*(?:string|str|&str|SecretStr|text|varchar)\s*)"
# How a name is joined to its value in languages that people paste: `:`, `=`, `:=`, `::=`, `?=`, `.=`, `=>`.
_EQUALS = r"[:.?+|]*=+>?|%3D"
_COLON = r":|\x{FF1A}"
_SIGN = rf"(?:{_EQUALS}|{_COLON})"
_QUOTED = (
    r"\"{3}(?:[^\"\\]|\\.)*(?:\"{3})?|'{3}(?:[^'\\]|\\.)*(?:'{3})?"
    r"|\"(?:[^\"\\\r\n]|\\.)*\"?|\\+\"[^\"\\\r\n]*\\*\"?|\\*'[^'\\\r\n]*\\*'?|`[^`\r\n]*`?"
)
_BARE = r"[^\s\"'`\\,;&<>{}()\[\]]"
_VALUE = rf"(?P<value>[fFrRbBuU]*(?:{_QUOTED})|{_BARE}+|[{{\[])"
# Behind a colon, a word with no digit and no capital within is a word of a text.
_ASSIGNED = (
    rf"[\"'`\\\]]*\s*{_TYPE}?"
    rf"(?:(?:{_EQUALS})\s*{_VALUE}"
    rf"|(?:{_COLON})\s*(?P<odd>[fFrRbBuU]*(?:{_QUOTED})|{_BARE}*(?:\p{{Nd}}|(?-i:[a-z][A-Z])){_BARE}*))"
)
_QUOTE = r"[\"'\\]+"
# White space, in JSON too.
_SPACE = r"(?:\s|\\+[nrt])*"
_SPACES = r"(?:\s|\\+[nrt])+"
_ANY_KEY = rf"(?P<name>[\w.-]*(?:{_KEY}|{_SHORT_KEY}))"
_BEGIN_KEY = r"-----BEGIN [0-9A-Z ]*PRIVATE KEY[A-Z ]*-----"
_END_KEY = r"-----END [0-9A-Z ]+-----"
_BASE64 = "[0-9A-Za-z+/_-]"
# The end of a line, and what quotes or comments begin the next one with.
_EOL = r"(?:(?:\\+r)?\\+n|\r?\n)[ \t>|#]*"
_PEM = r"(?:[0-9A-Za-z+/=\s:,-]|\\+[nrt])"


_COOKIE = r"(?:cookie|authorization)[\"'\\]*\s*[:=]"
_NAMED = rf"{_QUOTE}(?:name|key|header|field){_QUOTE}{_SPACE}:{_SPACE}{_QUOTE}[\w.-]*(?:{_KEY}|{_SHORT_KEY})"


# What a rule looks at in one text, one after the other; each takes some ten microseconds.
MAX_CANDIDATES = 1_000
# What all rules look at in all texts of one call, such as a batch of spans.
MAX_TOGETHER = 50_000
_left: ContextVar[list[int] | None] = ContextVar("candidates_left", default=None)


# In bytes: groups of matches in shorter texts are found at once.
_LONG = 4096


class Match:
    """One match of an expression in a text."""

    __slots__ = ("_found", "_groups", "end", "start", "string")

    def __init__(self, string: str, found: Any, groups: Mapping[str, int]) -> None:
        self.string = string
        self.start, self.end = found.span()
        self._found = found
        self._groups = groups

    def __getitem__(self, name: str) -> str:
        """Return what a named group holds, nothing where it took no part or where there is none of this name."""
        start, end = self._found.span(self._groups[name]) if name in self._groups else (-1, -1)
        return self.string[start:end] if start >= 0 else ""

    @property
    def text(self) -> str:
        """The whole match."""
        return self.string[self.start : self.end]


class BadPatternError(ValueError):
    """A pattern of the settings cannot be used; the message tells why."""


@dataclass(frozen=True)
class Rule:
    """One kind of secret: where it may be, and what is left of a match; without a judge nothing but its kind."""

    kind: str
    pattern: str
    judge: Callable[[Match], str | None] | None = None
    # What the set searches for instead of the pattern: it matches wherever the pattern does.
    trigger: str = ""
    # Whether a text in which the trigger is may hold the pattern, where the trigger says little.
    precheck: Callable[[str], bool] | None = None
    # How what the pattern finds has to go on, from its beginning.
    form: re.Pattern[str] | None = None

    def replace(self, match: Match) -> str | None:
        """Return what a match becomes; None where it stays."""
        return f"{match['before']}[redacted {self.kind}]" if self.judge is None else self.judge(match)


class Finder:
    """A rule whose expression is compiled."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._compiled = compiled(rule.pattern)
        self._without_groups = compiled(re.sub(r"\(\?P<\w+>", "(?:", rule.pattern))
        self._groups: Mapping[str, int] = (rule.form or self._compiled).groupindex

    def edits(self, text: str) -> list[tuple[int, int, str]]:
        """Return what the rule changes in a text: from where, to where, and into what.

        Of a text that consists of little else than what may be secrets, the rest is withheld.
        """
        edits: list[tuple[int, int, str]] = []
        together = _left.get() or [MAX_TOGETHER]
        end = 0
        for number, found in enumerate(self.find(text)):
            start = found.start()
            if number == MAX_CANDIDATES or not together[0]:
                edits.append((start, len(text), f"[withheld: {len(text) - start} characters behind too many secrets]"))
                break
            together[0] -= 1
            whole = _whole(text, found, end, self.rule.form) if self.rule.form else found
            if whole is None:
                continue
            match = Match(text, whole, self._groups)
            end = match.end
            if (new := self.rule.replace(match)) is not None:
                edits.append((match.start, end, new))
        return edits

    def find(self, text: str) -> Iterator[Any]:
        """Return what may be secrets of this kind, or how these begin, one after the other."""
        encoded = text.encode()
        found = self._find_in(encoded)
        return found if text.isascii() else _by_characters(encoded, found)

    def _find_in(self, encoded: bytes) -> Iterator[Any]:
        if self.rule.form:
            return self._without_groups.finditer(encoded)
        if len(encoded) < _LONG or not self._groups:
            return self._compiled.finditer(encoded)
        # RE2 finds the groups of a long match by far slower means than the match.
        return (self._with_groups(encoded, *found.span()) for found in self._without_groups.finditer(encoded))

    def _with_groups(self, encoded: bytes, start: int, end: int) -> Any:
        cut = start + _LONG
        while cut < end and 0x80 <= encoded[cut] < 0xC0:
            cut += 1
        if cut < end and (found := self._compiled.match(encoded, start, cut)) and found.end() == cut:
            return _Cut(found, cut, end)
        return self._compiled.match(encoded, start, end)


class _InText:
    """A match in encoded text, with the positions of its characters."""

    __slots__ = ("_encoded", "_found", "_start")

    def __init__(self, encoded: bytes, found: Any, start: int) -> None:
        self._encoded = encoded
        self._found = found
        self._start = start

    def start(self) -> int:
        return self._start

    def span(self, group: int = 0) -> tuple[int, int]:
        start, end = self._found.span(group)
        if start < 0:
            return start, end
        first = self._start + _length(self._encoded, self._found.start(), start)
        return first, first + _length(self._encoded, start, end)


class _Cut:
    """A match of which the groups were found in its beginning: what goes on there goes on to its end."""

    __slots__ = ("_cut", "_end", "_found")

    def __init__(self, found: Any, cut: int, end: int) -> None:
        self._found = found
        self._cut = cut
        self._end = end

    def start(self) -> int:
        return self._found.start()

    def span(self, group: int = 0) -> tuple[int, int]:
        start, end = self._found.span(group)
        return start, self._end if end == self._cut else end


def _whole(text: str, beginning: Any, end: int, form: re.Pattern[str]) -> re.Match[str] | None:
    """Return the match of a form that begins so, behind the end of the last one."""
    start, behind = beginning.span()
    # What ends one prefix may stand before the next one.
    places = (start, *(at for at in range(start + 1, behind) if not text[at].isalnum()))
    return next((whole for at in places if at >= end and (whole := form.match(text, at))), None)


@contextmanager
def counted_together() -> Iterator[None]:
    """Limit how much of what may be secrets is looked at in all texts of the block: what is beyond is withheld."""
    token = _left.set(_left.get() or [MAX_TOGETHER])
    try:
        yield
    finally:
        _left.reset(token)


def find_all(expression: Any, text: str) -> Iterator[Any]:
    """Return the matches of one of RE2's expressions in a text, one after the other."""
    encoded = text.encode()
    found = expression.finditer(encoded)
    # Positions in bytes are those of characters in ASCII.
    return found if text.isascii() else _by_characters(encoded, found)


def _by_characters(encoded: bytes, matches: Iterator[Any]) -> Iterator[_InText]:
    counted = characters = 0
    for found in matches:
        characters += _length(encoded, counted, found.start())
        counted = found.start()
        yield _InText(encoded, found, characters)


def _length(encoded: bytes, start: int, end: int) -> int:
    return len(encoded[start:end].decode())


def looks_random(text: str) -> bool:
    """Whether text is hardly a word: it has a digit, or changes case within."""
    return _RANDOM.search(text) is not None


def is_sensitive(name: str) -> bool:
    """Whether a field of this name holds a secret."""
    # The end of a name decides, and a name of a megabyte must not take a megabyte of the cache.
    return _is_sensitive_end(name[-100:])


@lru_cache(maxsize=4096)
def _is_sensitive_end(name: str) -> bool:
    return bool(_SENSITIVE_NAME.search(name)) and not _HARMLESS_NAME.search(name)


def is_operation(name: str) -> bool:
    """Whether a name is an operation's: what it holds is told by the names within."""
    return bool(_OPERATION.match(name))


def is_card_name(name: str) -> bool:
    """Whether a number in a field of this name may be a payment card's."""
    return bool(_CARD_NAME.search(name))


def is_variable(text: str) -> bool:
    """Whether text is a variable of a shell or of a template, which is not its value."""
    return bool(_VARIABLE.fullmatch(text))


def compiled(pattern: str) -> Any:
    """Return an expression, compiled; raises `BadPatternError` for one that RE2 does not know."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        raise BadPatternError(f"{pattern!r} is not an RE2 expression: {reason}") from None


def own(patterns: Sequence[str]) -> tuple[Rule, ...]:
    """Return the rules of somebody's own patterns."""
    return tuple(Rule("text", pattern) for pattern in patterns)


_SENSITIVE_NAME = re.compile(rf"(?i)(?:{_KEY}|(?:^|[_.-])(?:{_SHORT_KEY}))$")
_HARMLESS_NAME = re.compile(
    r"(?i)(?:^|[_.-])(?:(?:first|last|next|prev|max|min|num|stop|eos|bos|pad|unk|per|page|public|input|output|public[_-]?key)[_-]?token"
    r"|jsonwebtoken)$|to_?(?:keep|store)_?secrets$"
)
# What is done with a secret, as in a list of a service's operations.
_OPERATION = re.compile(r"(?:Add|Create|Delete|Describe|Get|List|Put|Refresh|Revoke|Rotate|Update|Validate)[A-Z]")
_CARD_NAME = re.compile(r"(?i)(?:^|[_.-]|credit|debit)(?:card|pan|cc)(?:[_-]?(?:number|no|num))?$|cardnumber$")
# A number of three digits is a secret only here.
_CARD_CODE = re.compile(r"(?i)(?:^|[_.-])cv[cv]$")
# What stands for a password in descriptions of a command.
_SAMPLE_USERS = frozenset({"user", "username", "xxx"})
_SAMPLE_PASSWORDS = frozenset({"pass", "password", "token", "yyy"})
_WEAK_NAME = re.compile(r"(?i)(?:^|[^a-z])tokens?$")
_OPENING = re.compile(r"[fFrRbBuU]*[\"'`\\]+")
_LITERALS = {"none", "null", "true", "false", "undefined", "nil", "string", "str", "int", "bool", "...", "", "{", "["}
_LITERALS |= {"*", "***", "include", "omit", "same-origin", "required", "optional"}
_VARIABLE = re.compile(
    r"\$\{?[A-Za-z_][A-Za-z0-9_]*(?::?[-=?][^}]*)?\}?|\$\d|\$\{?\{[^}]*\}?\}?|\$\([^)]*\)?|%[A-Za-z_]\w*%|\{\{.*|<[^<>]*>?"
    r"|[A-Za-z _-]*\$?\{[^{}]*\}(?:[A-Za-z:/ _-]*\$?\{[^{}]*\})*[A-Za-z_-]*|\.[a-z_.]+|[xX]{3,}|\*+|%[a-z]"
    r"|.{0,12}\.\.\.|(?i:your[ _-].*|my[ _-](?:(?:api|access|secret)[ _-])?(?:key|token|secret|password))"
)
_MEASURE = re.compile(r"[$€£#]?\d[\d.,]*\s*(?:[a-z]{1,2}|%)?")
_COLOUR = re.compile(r"#[0-9a-fA-F]{3,8}")
_VERSION = re.compile(r"\d+(?:\.\w+)+")
# The rest of a type.
_UNION = re.compile(r" ?\| ?[A-Za-z]")
# What stands before the name of a secret of AWS.
_ARN = re.compile(r"arn:aws[\w-]*:secretsmanager:[\w-]*:\d*:$")
# What a value begins with in a program, or is.
_KEYWORDS = frozenset({"await", "new", "value", "void", "!0", "!1"})
# What a shell runs for a value.
_COMMAND = re.compile(r"[a-z][\w./-]* .*[/-]")
# What is joined to a text in a program.
_JOINED = re.compile(r" ?\+ ?[A-Za-z_$][\w$.]* ?[+);,\]]")
_NAME_OF = re.compile(r"[A-Za-z_]+(?:\.[A-Za-z_]+)+;?")
_CALLED = re.compile(r"[A-Za-z_.]+[(\[]")
# The rest of a call, which is no end of a password.
_CALL = re.compile(r"\([^\n]*\)|\[[^\n]*\]")
# What stands behind the end of a text in a program, and behind code in a sentence.
_BEHIND_QUOTE = frozenset("+),;.]}| ")
_IDENTIFIER = re.compile(r"[A-Za-z_.-]+")
_EXPRESSION = re.compile(r"[A-Za-z_]+(?:\.\w+)*")
# What a field is called on a page.
_LABEL = re.compile(rf"(?i)(?:[a-z]+ )+(?:{_KEY})")
_PATH = re.compile(r"[A-Za-z_]\w*(?:\.\w+)+")
_NAMES_SECRET = re.compile(rf"(?i)(?:{_KEY}|{_SHORT_KEY})s?$")
_PASSWORD = re.compile(r"(?i)pass|pwd|contrase|senha|wachtwoord|kennwort|has[lł]o|парол|密")
_IS_CAMEL = re.compile(r"[a-z][A-Z]|_")
# Fields of what taggers and models report of the tokens of a text.
_BESIDE_TEXT_TOKEN = re.compile(r"[\"'](?:pos|lemma|logprobs?|top_logprobs|bytes|tag|dep)[\"']\s*:")

_RANDOM = re.compile(r"\d|[a-z][A-Z]")
_LONG_PART = re.compile(r"[^_-]{16,}")
# The sum of the digits of twice a digit.
_DOUBLED = str.maketrans("0123456789", "0246813579")

# What follows an option where text is about it.
_PROSE = re.compile(
    "(?i)(?:an?|and|are|argument|as|at|but|by|can|flag|for|from|has|if|in|instead|into|is|its?|may|must|not?|of|on"
    "|option|or|parameter|should|so|than|that|the|then|this|to|was|when|where|which|will|with|without|you)[.:`]?"
)


def _has(pattern: str) -> Callable[[str], bool]:
    expression = compiled(pattern)
    return lambda text: expression.search(text) is not None


def _is_filled(text: str) -> bool:
    """Whether text consists of one or two letters or digits over and over again, but for its beginning."""
    rest = re.sub(r"[\W_]", "", text)[11:] if len(text) < 200 else ""
    return len(rest) > 8 and len(set(rest)) < 3


def _unless_placeholder(kind: str) -> Callable[[Match], str | None]:
    def judge(match: Match) -> str | None:
        # As people write where a key goes: `ghp_xxxx…`.
        return None if _is_filled(match.text) else f"{match['before']}[redacted {kind}]"

    return judge


def _azure_secret(match: Match) -> str | None:
    # Longer ones are somebody else's, such as Freenet's.
    is_azures = len(match["secret"].rstrip(".")) <= 40 and not _is_filled(match.text)
    return f"{match['before']}[redacted secret]" if is_azures else None


def _random(kind: str) -> Callable[[Match], str | None]:
    def judge(match: Match) -> str | None:
        # A key has a part without hyphens that is too long for a word.
        parts = _LONG_PART.findall(match["secret"])
        return f"{match['before']}[redacted {kind}]" if any(map(looks_random, parts)) else None

    return judge


def _bearer(match: Match) -> str | None:
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


def _assigned(match: Match) -> str | None:
    name, given = match["name"], match["value"] or match["odd"]
    between = match.text[len(match["before"]) + len(name) : -len(given)]
    quote, value = _unquote(given)
    if quote and (_closes(match, quote, given) or value.lower() in ("basic ", "bearer ")):
        return None
    if quote == "`" and between == "=" and _COMMAND.match(value):
        return None
    if not is_sensitive(name) or len(value) < 2 or (not quote and _is_code(match, name, between, value)):
        return None
    if says_nothing(name, value) or value.lower() == name.lower():
        return None
    sign = between.strip("\"'`\\] \t\r\n")
    if sign == "==" and _VERSION.fullmatch(value):
        return None
    if _WEAK_NAME.search(name) and _is_text_token(match, between, value):
        return None
    return _put(match, name, between, given)


def _is_code(match: Match, name: str, between: str, value: str) -> bool:
    """Whether an unquoted value is an expression of a program, a colour in a style sheet, or the next line."""
    next_sign = match.string[match.end : match.end + 1]
    value = value.removesuffix(":")
    if value in _KEYWORDS:
        return True
    if name == "PASS" and between.strip() == ":" and value.isalpha():
        return True  # what a test reports
    if len(value) < 3 and next_sign in (",", ";"):
        return True
    if name == "secret" and _ARN.search(match.string[max(match.start - 80, 0) : match.start]):
        return True
    if "\n" in between.rpartition("=")[2] or (name.startswith("--") and ":" in between):
        return True
    if ":" in between and _UNION.match(match.string, match.end):
        return True
    is_spaced = between[-1:].isspace()
    is_call = next_sign in ("(", "[") and value.replace(".", "").replace("_", "").isalnum()
    if is_call and (is_spaced or "." in value or _CALL.match(match.string, match.end)):
        return True
    if value.startswith(":") or (_PATH.fullmatch(value) and _NAMES_SECRET.search(value[-100:])):
        return True
    is_argument = next_sign in (",", ")") and ("_" in value or "." in value)
    if not _EXPRESSION.fullmatch(value) or not (is_spaced or is_argument):
        return False
    # What is called as a secret is called holds one; a word alone may be one, but for what a field is set to.
    return (
        "." in value
        or "]" in between
        or bool(_NAMES_SECRET.search(value[-100:]))
        or bool(_IS_CAMEL.search(value) and not _PASSWORD.search(name))
    )


def _closes(match: Match, quote: str, given: str) -> bool:
    """Whether a quote before a value is the last one of the text that the name stands in."""
    start = match.end - len(given)
    if _JOINED.match(given, len(quote)):
        return True
    line = match.string[max(match.string.rfind("\n", 0, start), start - 300) + 1 : start]
    return given[len(quote) : len(quote) + 1] in _BEHIND_QUOTE and line.count(quote[-1:]) % 2 == 1


def _is_text_token(match: Match, between: str, value: str) -> bool:
    """Whether what is called a token is a word, a sign or a measure of a text, and opens nothing."""
    if len(value) < 8 and value.isalpha() and "=" not in between.strip():
        return True
    is_word = value.isalpha() and (len(value) < 8 or value.istitle())
    if is_word and between[-1:].isspace():
        return True
    if (_MEASURE.fullmatch(value) and not value.isdigit()) or _COLOUR.fullmatch(value):
        return True
    if _IDENTIFIER.fullmatch(value) and value.lower().endswith(("token", "tokens")):
        return True
    around = match.string[max(match.start - 80, 0) : match.end + 80]
    return bool(_BESIDE_TEXT_TOKEN.search(around))


def _paired(match: Match) -> str | None:
    name, value = match["name"], match["value"]
    if not value or not is_sensitive(name) or says_nothing(name, _unquote(value)[1]):
        return None
    return _put(match, name, match["between"], value)


def _behind(match: Match) -> str | None:
    given = match["value"]
    quote, _ = _unquote(given)
    if not is_sensitive(match["name"]) or says_nothing(match["name"], given.strip("\"'`\\")):
        return None
    return f"{match['before']}{quote}[redacted {_kind_of(match['name'])}]{quote}{match['between']}{match['name']}"


def _listed(match: Match) -> str | None:
    # Two words in brackets are a pair only in a list of them, or as bytes, or where the second is no name.
    value = match["value"]
    is_pair = match["list"] or match["between"].endswith("b") or any(map(str.isdigit, value))
    return _paired(match) if is_pair and not _NAMES_SECRET.search(value.strip("\"'\\")[-100:]) else None


def _option(match: Match) -> str | None:
    value = match["value"].strip("\"'`\\")
    if value.startswith("-") or _PROSE.fullmatch(value) or is_variable(value):
        return None
    return _paired(match)


def _argument(match: Match) -> str | None:
    value = match["value"].strip("\"'`\\")
    if is_variable(value) or value.lower() in _LITERALS or value.startswith("[redacted"):
        return None
    return f"{match['before']}[redacted password]"


def _block(match: Match) -> str | None:
    if not is_sensitive(match["name"]):
        return None
    indent = re.match(r"[ \t]*", match["value"])
    line = f"{indent.group() if indent else ''}[redacted {_kind_of(match['name'])}]"
    return f"{match['name']}{match['between']}{line}{match['end']}"


def _login(match: Match) -> str | None:
    value = match["value"].strip("\"'`\\")
    is_sample = match["user"] in _SAMPLE_USERS and value in _SAMPLE_PASSWORDS
    if is_variable(value) or is_sample or re.fullmatch(r"\[[A-Z_]+\]", value):
        return None
    return f"{match['before']}[redacted login]"


def _url_login(match: Match) -> str | None:
    user, _, password = match["login"].partition(":")
    if not user and not password:
        return None
    if re.match(r"\d{1,5}/", password):
        return None  # a port, and an @ in the path behind it
    if not password and not match["scheme"].lower().startswith("http") and not looks_random(user):
        return None
    if is_variable(password) or match["login"].endswith(("user:password", "username:password", "user:pass")):
        return None
    return f"{match['scheme']}{match['slashes']}[redacted login]@"


def _put(match: Match, name: str, between: str, given: str) -> str:
    opening, _ = _unquote(given)
    quote = opening.lstrip("fFrRbBuU")
    closing = quote if quote and given.endswith(quote) else ""
    return f"{match['before']}{name}{between}{opening}[redacted {_kind_of(name)}]{closing}"


def _unquote(given: str) -> tuple[str, str]:
    """Return what a value is quoted with, the letters before it that some languages have too, and what it holds."""
    found = _OPENING.match(given)
    opening = found.group() if found else ""
    return opening, given[len(opening) :].strip("\"'`\\")


def says_nothing(name: str, value: str) -> bool:
    """Whether what stands under a sensitive name cannot be a secret: a type, a small number, a folder, nothing."""
    if value.isdigit() and len(value) < 4:
        return not _CARD_CODE.search(name)
    if name in ("PWD", "OLDPWD") and value.startswith("/"):
        return True
    if _LABEL.fullmatch(value):
        return True
    is_short = len(value) < 6 and not any(map(str.isalnum, value))
    return (
        is_short
        or _is_filled(value)
        or value.lower() in _LITERALS
        or value.startswith("[redacted")
        or is_variable(value)
    )


def _kind_of(name: str) -> str:
    return _kind_of_end(name[-100:])


@lru_cache(maxsize=1024)
def _kind_of_end(name: str) -> str:
    found = re.search(rf"(?i)(?:{_KEY})$", name)
    return found.group().lower().replace("_", " ").replace("-", " ") if found else "secret"


def _element(match: Match) -> str | None:
    name, value = match["name"], match["value"]
    if not is_sensitive(name) or says_nothing(name, value.strip()) or _LABEL.fullmatch(value.strip()):
        return None
    head = value[: len(value) - len(value.lstrip())]
    tail = value[len(value.rstrip()) :]
    return f"<{match['before']}{name}{match['between']}{head}[redacted {_kind_of(name)}]{tail}</"


def _header(match: Match) -> str | None:
    named = match["name"] + match["between"]
    scheme, _, rest = match["value"].partition(" ")
    has_scheme = scheme.lower() in ("bearer", "basic", "token", "digest", "apikey", "negotiate")
    if has_scheme and (is_variable(rest.strip()) or set(rest.strip()) <= set("*.")):
        return None
    value = match["value"]
    if len(value) < 4 or value.startswith("[redacted") or _CALLED.match(value) or _NAME_OF.fullmatch(value):
        return None
    # Where it is a sentence, it has more words than a scheme and what goes with it.
    hidden = has_scheme or "=" in value or (looks_random(value) and len(value.split()) < 3)
    return f"{named}[redacted header]" if hidden else None


def _parameter(match: Match) -> str | None:
    value = match["value"]
    is_short = len(value) < 12 and match["name"].lower()[1:-1] in ("code", "key", "sid")
    return f"{match['name']}[redacted parameter]" if looks_random(value) and not is_short else None


def _file(match: Match) -> str | None:
    return binary.describe_base64(match.text)


def _private_key(match: Match) -> str | None:
    # Between the words of a long text that only names both lines there is no key.
    return "[redacted private key]" if len(match.text) < 20_000 else None


def _card(match: Match) -> str | None:
    # What stands behind it is no part of the match: it may be what stands before the next one.
    after = match.string[match.end : match.end + 2]
    is_longer = (after[:1].isascii() and after[:1].isalnum()) or (after[:1] == "." and after[1:].isdigit())
    return f"{match['before']}[redacted card]" if is_card(match["digits"]) and not is_longer else None


def is_card(text: str) -> bool:
    """Whether digits, grouped as on a card or not at all, are a payment card's number."""
    digits = text.replace(" ", "").replace("-", "")
    doubled = digits[-2::-2].translate(_DOUBLED)
    return len(set(digits)) > 1 and sum(map(int, digits[-1::-2] + doubled)) % 10 == 0


def _cards() -> str:
    """Return the numbers of cards: by issuer and length, in one piece or in the groups that are on them."""
    four = (
        "4[0-9]{3}",
        "5[1-5][0-9]{2}",
        "222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720",
        "6011",
        "62[0-9]{2}",
    )
    first = "|".join((*four, "64[4-9][0-9]", "65[0-9]{2}", "352[89]|35[3-8][0-9]"))
    forms = [f"(?:{first}){sign}[0-9]{{4}}{sign}[0-9]{{4}}{sign}[0-9]{{4}}" for sign in ("", " ", "-")]
    forms += [f"3[47][0-9]{{2}}{sign}[0-9]{{6}}{sign}[0-9]{{5}}" for sign in ("", " ", "-")]
    forms += [f"3(?:0[0-5]|[689][0-9])[0-9]{sign}[0-9]{{6}}{sign}[0-9]{{4}}" for sign in ("", " ", "-")]
    return "|".join(forms)


# A key whose end is missing goes as far as it looks like one, whatever stands before its lines.
_CUT_KEY = (
    rf"{_BEGIN_KEY}{_PEM}*"
    rf"(?:(?:[^0-9A-Za-z]|<br ?/?>|(?i:%0[ad])){{0,12}}(?:[\w.-]{{1,30}}:)?[0-9A-Za-z+/=]{{30,}}{_PEM}*)*"
)

SECRETS: tuple[Rule, ...] = (
    Rule("private key", rf"(?s){_BEGIN_KEY}.*?{_END_KEY}", _private_key, trigger=r"-----BEGIN [0-9A-Z ]*PRIVATE KEY"),
    Rule("private key", _CUT_KEY, trigger=r"-----BEGIN [0-9A-Z ]*PRIVATE KEY"),
    Rule("private key", rf"Private-Lines: [0-9]+{_PEM}*", trigger="Private-Lines: [0-9]"),
    Rule(
        "file",
        r"data:[\w.+-]+/[\w.+-]+(?:;[\w.=+-]+)*;base64,[0-9A-Za-z+/_=-]+",
        lambda m: binary.describe_data_uri(m.text) if len(m.text) > 60 else None,
        trigger=r";base64,",
    ),
    Rule("token", rf"{_BEFORE}(?:eyJ[\w=-]{{10,}}\.[\w=-]+(?:\.[\w=-]*)*|ZXlK[\w=+/-]{{40,}})", trigger=r"eyJ|ZXlK"),
    Rule("key", rf"{_BEFORE}(?:{_PREFIXES})", _unless_placeholder("key"), form=_TOKEN),
    # Telegram's, in its addresses too; an app access token of Facebook.
    Rule("key", rf"{_BEFORE}(?:bot)?[0-9]+:AA[\w-]{{32,}}", trigger=r"[0-9]:AA[\w-]"),
    Rule("key", rf"{_BEFORE}[0-9]{{15,16}}(?:\||%7[cC])[\w-]{{27,40}}", trigger=rf"{'[0-9]' * 8}(?:\||%7[cC])[\w-]"),
    Rule("key", rf"{_BEFORE}(?P<secret>sk-[\w-]{{20,}})", _random("key"), trigger=rf"{_BEFORE}sk-"),
    # Without groups: RE2 finds them in a file of a megabyte by far slower means.
    Rule(
        "file",
        rf"(?:{_BASE64}{{160,}}={{0,2}}|{_BASE64}{{60,}}{_EOL}{_BASE64}{{16,}}={{0,2}})(?:{_EOL}{_BASE64}{{16,}}={{0,2}})*",
        _file,
        trigger=binary.MIXED,
        precheck=binary.may_hold_file,
    ),
    Rule(
        "webhook",
        r"(?P<before>hooks\.slack\.com/(?:services|workflows|triggers)/|\.webhook\.office\.com/webhookb2/"
        r"|discord(?:app)?\.com/api/webhooks/)[\w/@-]+",
        trigger=r"hooks\.slack\.com|\.webhook\.office\.com|discord(?:app)?\.com",
    ),
    Rule("secret", rf"{_BEFORE}(?P<secret>[\w~.]{{3}}[0-9]Q~[\w~.-]{{31,}})", _azure_secret, trigger=r"[0-9]Q~"),
    Rule(
        "token",
        r"[0-9A-Za-z]{14}\.(?i:atlasv1)\.[\w=-]{20,}",
        _unless_placeholder("token"),
        trigger=r"\.(?i:atlasv1)\.",
    ),
    Rule("session", r"(?P<before>_gitlab_session=)[0-9a-z]{20,}", trigger=r"_gitlab_session="),
    Rule(
        "token",
        rf"(?i){_BEFORE}(?P<scheme>(?:bearer|basic)(?:\s|%20|\+)+)(?P<secret>[\w.~+/-]{{8,}}=*)",
        _bearer,
        trigger=r"(?i)(?:bearer|basic)(?:\s|%20|\+)+[\w.~+/-]",
    ),
    Rule(
        "login",
        r"(?P<scheme>[A-Za-z][\w+.-]*|)(?P<slashes>:(?:\\?/){2})"
        r"(?P<login>[^\s/?#:@\"'\\<>]*:[^\s\"'\\<>@]*|[^\s/?#:@\"'\\<>]+)@",
        _url_login,
        trigger=r":\\?/\\?/[^\s\"'\\<>@]*@",
    ),
    Rule(
        "header",
        r"(?i)(?P<name>(?:set-)?cookie|(?:proxy-)?authorization)(?P<between>[\"'\\]*\s*[:=]\s*[\"'\\]*)"
        r"(?P<value>[^\r\n\"'\\]+)",
        _header,
        trigger=rf"(?i){_COOKIE}",
    ),
    Rule(
        "secret",
        rf"(?i)(?P<name>[\w.-]*(?:{_KEY}))(?P<between>{_QUOTES}*\s*:\s*[|>][+-]?[ \t]*)"
        r"(?P<value>(?:(?:\r?\n|\\n)[ \t]+[^\s\\][^\r\n\\]*)+)(?P<end>)",
        _block,
        trigger=rf"(?i)(?:{_KEY}){_QUOTES}*\s*:\s*[|>]",
    ),
    Rule(
        "secret",
        rf"(?i)(?P<before>)(?P<name>[\w.-]*(?:{_KEY})){_ASSIGNED}",
        _assigned,
        trigger=rf"(?i)(?:{_KEY})[\"'`\\\]]*{_SPACE}{_TYPE}?{_SIGN}",
    ),
    Rule(
        "secret",
        rf"(?i){_BEFORE}(?P<name>{_SHORT_KEY}){_ASSIGNED}",
        _assigned,
        trigger=rf"(?i){_BEFORE}(?:{_SHORT_KEY})[\"'`\\\]]*{_SPACE}{_TYPE}?{_SIGN}",
    ),
    # Without a value behind it, it says that there is a pair somewhere in this JSON.
    Rule(
        "secret",
        rf"(?i)(?P<before>{_QUOTE}(?:name|key|header|field){_QUOTE}{_SPACE}:{_SPACE}{_QUOTE}){_ANY_KEY}"
        rf"(?P<between>{_QUOTE}(?:{_SPACE},{_SPACE}{_QUOTE}value{_QUOTE}{_SPACE}:{_SPACE})?){_VALUE}?",
        _paired,
        trigger=rf"(?i){_NAMED}",
    ),
    Rule(
        "secret",
        rf"(?i)(?P<before>\b(?:name|key)\s*[:=]\s*{_QUOTES}*){_ANY_KEY}"
        rf"(?P<between>{_QUOTES}*[\s,]+(?:secret_?)?value\s*[:=]\s*){_VALUE}",
        _paired,
        trigger=rf"(?i)(?:{_KEY}|{_SHORT_KEY}){_QUOTES}*(?:,|{_SPACES})+(?:secret_?)?value",
    ),
    Rule(
        "secret",
        rf"(?i)(?P<before>{_QUOTE}value{_QUOTE}{_SPACE}:{_SPACE})(?P<value>{_QUOTED})"
        rf"(?P<between>{_SPACE},[^{{}}]*?{_QUOTE}(?:name|key|header|field){_QUOTE}{_SPACE}:{_SPACE}{_QUOTE}){_ANY_KEY}",
        _behind,
        trigger=rf"(?i){_NAMED}",
        precheck=_has("(?i)value"),
    ),
    Rule(
        "secret",
        rf"(?i)(?P<before>(?P<list>[\[(,]{_SPACE})?[\[(]{_SPACE}b?{_QUOTE}){_ANY_KEY}"
        rf"(?P<between>{_QUOTE}{_SPACE},{_SPACE}b?)(?P<value>{_QUOTED})",
        _listed,
        trigger=rf"(?i)(?:{_KEY}|{_SHORT_KEY}){_QUOTE}{_SPACE},{_SPACE}b?[\"'`\\]",
    ),
    Rule(
        "secret",
        rf"(?i)(?P<before>--){_ANY_KEY}(?P<between>{_QUOTE}{_SPACE},{_SPACE}|{_SPACES}){_VALUE}",
        _option,
        trigger=rf"(?i)--[\w.-]*(?:{_KEY}|{_SHORT_KEY})(?:{_QUOTE}{_SPACE},|{_SPACES})",
    ),
    Rule(
        "login",
        r"(?P<before>curl\b(?:[^\r\n]|[\\,]\r?\n)*?(?:[\s\"']|\\+[nrt])(?:-[uU]|--(?:proxy-)?user)(?:\\+[nrt]|[\s=\"'\\,])*)"
        r"(?P<user>[^\s:\"'\\=]*):(?P<value>[\"'\\]*[^\s\"'\\]+)",
        _login,
        trigger=r"curl\b",
        precheck=_has("-u|-U|-user"),
    ),
    # It says that there may be such a list somewhere.
    Rule(
        "login",
        r"(?s)curl\b.*?(?:[\s\"']|\\+[nrt])(?:-[uU]|--(?:proxy-)?user)(?:\\+[nrt]|[\s=\"'\\,])*[^\s:\"'\\]*:",
        lambda _: None,
        trigger=r"curl\b",
        precheck=_has("-u|-U|-user"),
    ),
    Rule(
        "password",
        rf"(?P<before>\b(?:mysql|mysqldump|mysqladmin|mariadb|sshpass)\b[^\r\n]*?\s-p)(?P<value>{_QUOTED}|[^\s\"'\\-][^\s\"'\\]*)",
        _argument,
        trigger=r"(?:mysql(?:dump|admin)?|mariadb|sshpass)\b",
        precheck=_has("-p"),
    ),
    Rule(
        "password",
        r"(?P<before>\b(?:sshpass|(?:docker|podman|helm registry)\s+login\b[^\r\n]*?)\s+-p\s+)"
        r"(?P<value>[^\s\"'\\]+|'[^']*'|\"[^\"]*\")",
        _argument,
        trigger=r"sshpass|login\b",
        precheck=_has(r"\s-p\s"),
    ),
    Rule(
        "password",
        r"(?i)(?P<before>\b(?:identified\s+by\s+(?:password\s+)?|(?:with|login|encrypted)\s+password\s+))"
        r"(?P<value>'[^'\r\n]*'|\"[^\"\r\n]*\")",
        _argument,
        trigger=rf"(?i)(?:identified{_SPACES}by|(?:with|login|encrypted){_SPACES}password){_SPACES}",
    ),
    Rule(
        "password",
        r"(?i)(?P<before>\blogin\s+\S+\s+password\s+)(?P<value>\S+)",
        _argument,
        trigger=rf"(?i)\blogin{_SPACES}",
        precheck=_has("(?i)password"),
    ),
    Rule(
        "secret",
        rf"(?P<before>\b(?:ENV|setenv)\s+)(?P<name>\w*(?i:{_KEY}))(?P<between>[ \t]+)(?P<value>[^\s=]\S*)",
        _paired,
        trigger=rf"(?:ENV|setenv){_SPACES}\w*(?i:{_KEY})",
    ),
    Rule(
        "secret",
        rf"(?i)<(?P<name>[\w.:-]*(?:{_KEY}))(?P<between>(?:\s[^<>]*)?>)(?P<value>[^<>]+)</",
        _element,
        trigger=rf"(?i)<[\w.:-]*(?:{_KEY})[\s>]",
    ),
    Rule(
        "secret",
        rf"(?i)<(?P<before>[\w.:-]+\s(?:[^<>]*\s)?(?:name|key|id)={_QUOTE}){_ANY_KEY}"
        rf"(?P<between>{_QUOTE}[^<>]*>)(?P<value>[^<>]+)</",
        _element,
        trigger=rf"(?i)\s(?:name|key|id)={_QUOTE}[\w.-]*(?:{_KEY}|{_SHORT_KEY}){_QUOTE}[^<>]*>",
    ),
    Rule(
        "parameter",
        r"(?i)(?P<name>[?&;](?:key|sig|signature|code|auth|hmac|otp|jwt|sid|session_?id|x-(?:amz|goog)-[a-z-]+)=)"
        r"(?P<value>[^&\s\"'\\<>#]{6,})",
        _parameter,
        trigger=r"(?i)[?&;](?:key|sig|signature|code|auth|hmac|otp|jwt|sid|session_?id|x-(?:amz|goog)-[a-z-]+)=",
    ),
    Rule(
        "card",
        rf"(?P<before>^|\\[nrtbf]|\\u{_HEX_DIGIT * 4}|[^0-9A-Za-z.])(?P<digits>{_cards()})",
        _card,
        trigger=r"(?:^|[^0-9A-Za-z.]|\\[nrtbf])[2-6][0-9][0-9][0-9][ -]?[0-9][0-9][0-9][0-9]",
    ),
)
CONTACTS: tuple[Rule, ...] = (
    Rule("e-mail", r"[0-9A-Za-z._%+-]+@[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*\.[A-Za-z]{2,}", trigger=r"@[0-9A-Za-z]"),
    Rule("phone", r"\+[0-9]{1,3}[ .()/-]{0,3}(?:[0-9][ .()/-]{0,2}){6,12}[0-9]", trigger=r"\+[0-9]"),
    Rule(
        "phone",
        rf"{_BEFORE}(?:\([0-9]{{3}}\) ?|[0-9]{{3}}[ .-])[0-9]{{3}}[ .-][0-9]{{4}}\b",
        trigger=r"[0-9][0-9][0-9][) .-]+[0-9][0-9][0-9][ .-]",
    ),
    Rule(
        "phone",
        rf"{_BEFORE}0[0-9]{{2,4}}[ /-][0-9]{{3,4}}[ -]?[0-9]{{2,5}}\b",
        trigger=r"(?:^|[^0-9A-Za-z])0[0-9]+[ /-][0-9]",
    ),
)
