"""Text and values without their secrets."""

import html
import re
from binascii import a2b_qp
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from operator import eq
from sys import getsizeof
from typing import Any
from urllib.parse import unquote

import re2

from telemetry import large_files
from telemetry.export.media import TextWithMedia, collect, collecting_apart
from telemetry.export.redact import binary
from telemetry.export.redact.patterns import (
    CONTACTS,
    SECRETS,
    Finder,
    Rule,
    compiled,
    counted_together,
    find_all,
    is_card,
    is_card_name,
    is_operation,
    is_sensitive,
    is_variable,
    own,
    says_nothing,
)
from telemetry.export.redact.plain import to_plain
from telemetry.json_text import dump, parse
from telemetry.lru_cache import ENTRY_BYTES, LruCache
from telemetry.messages_json import MessagesJson

# Characters may be written as numbers: in JSON, in an address (twice, when one is a parameter of another), in HTML.
_ENCODED = r"\\u[0-9a-fA-F]|%[0-9a-fA-F][0-9a-fA-F]|&(?:#[0-9a-zA-Z]+|quot|apos|lt|gt|amp|colon|equals|sol);"
_HEX = "[0-9A-Fa-f]"
_SIGN = "%(?:25)*"
# A byte of UTF-8 that is not the first one of its character.
_NEXT = rf"(?:{_SIGN}[89ABab]{_HEX})"
_ENTITY_NAME = r"(?:amp;)*(?:#[0-9]{1,4}|#[xX][0-9a-fA-F]{1,4}|quot|apos|lt|gt|amp|colon|equals|sol);"
_ENTITY_START = re.compile(r"(?:&|\\+u0026)(?:amp;(?=.))*")
_CHARACTER = compiled(
    rf"(?:&|\\+u0026){_ENTITY_NAME}"
    r"|\\+u(?:[0-9a-cA-CeEfF][0-9a-fA-F]|[dD][0-7])[0-9a-fA-F]{2}"
    rf"|{_SIGN}[cdCD]{_HEX}{_NEXT}|{_SIGN}[eE]{_HEX}{_NEXT}{{2}}|{_SIGN}[fF]{_HEX}{_NEXT}{{3}}|{_SIGN}{_HEX}{_HEX}"
)
_ESCAPED_ESCAPE = re.compile(r"(?<!\\)\\{2,}+u")
_ENCODED_SIGN = re.compile(rf"{_SIGN}([0-9A-Fa-f]{{2}})")
_NUMBERED_ENTITY = re.compile(r"&#(?:[0-9]{1,4}|[xX][0-9a-fA-F]{1,4});")
# So many different ones are replaced one after the other, more of them by a function for each.
_MAX_REPLACED = 50
_ENTITY = re.compile(r"&(?:#|quot;|apos;|lt;|gt;|colon;|equals;|sol;)")
# The numbered one is what programs write for an apostrophe.
_ENTITIES = {
    f"&{name};": html.unescape(f"&{name};") for name in ("quot", "apos", "#39", "lt", "gt", "colon", "equals", "sol")
}
_PERCENT = re.compile(r"%[0-9A-Fa-f]{2}")
_ODD_SIGN = compiled(r"%[%\r\n]")
_OTHER_ESCAPE = compiled(r"\\(?:[^u]|$)")
_TO_QUOTED = bytes.maketrans(b"%=", b"=\x01")
# What an encoded character has at most to be cached.
_MAX_CACHED = 40
# Where there are fewer encoded characters than one in so many, they are read one by one.
_SPARSE = 200
_PIECE = 4096
# How often a text may have been encoded to be read.
_MAX_ENCODED = 4
# The end of a line in a word that goes on in the next one, with digits or capitals within, and is no name of a field.
_WRAP = re.compile(
    r"(?<=[\w.-]{8})[=\\]?(?:\r?\n|\\r?\\n|\\n)[ \t>|#]{0,20}"
    r"(?=[A-Za-z_-]{0,60}(?:[0-9]|[a-z][A-Z])[\w.-]{0,200}={0,2}(?:[\s\"'`<>,;)\\]|$))"
)
_LINE_END = r"(?:\r?\n|\\r?\\n|\\n)[ \t>|#]*[A-Za-z_-]*(?:[0-9]|[a-z][A-Z])"
_END_OF_LINE = compiled(r"[=\\]?" + _LINE_END)
# Protobuf reads a hundred levels, of which a value in a value takes three.
_MAX_DEPTH = 28

# A field may be written as a pair: what it is called under one of these names, what it holds under one of those.
_NAMES = ("name", "Name", "key", "Key", "header", "field")
_VALUES = frozenset({"value", "Value"})
_TYPES = ("string", "number", "integer", "boolean", "object", "array", "null")
# What taggers and models report beside a token of a text.
_BESIDE_TEXT_TOKEN = frozenset({"pos", "lemma", "logprob", "logprobs", "top_logprobs", "bytes", "tag", "dep"})

# What curl is, and the options that give it a login.
_CURL = re.compile(r"(?:.*[/\\])?curl(?:\.exe)?")
_USER = re.compile(r"-[uU]|--(?:proxy-)?user")
_LOGIN = re.compile(r"(?P<option>-[uU]|--(?:proxy-)?user=|)[^:\s]*:(?P<password>.+)", re.DOTALL)

# Redacted parts of conversations, in bytes; the turns of a thread have most of them in common.
_CACHE_BYTES = 32 * 1024 * 1024


# Whether, or in which texts, it is known that no rule applies.
Searched = bool | frozenset[str]


def _weigh(part: str, clean: str) -> int:
    media = sum(len(each.content) for each in clean.media) if isinstance(clean, TextWithMedia) else 0
    return ENTRY_BYTES + getsizeof(part) + (0 if clean is part else getsizeof(clean)) + media


class Redactor:
    """Takes secrets out of text and values.

    One set of all expressions tells in one pass which may apply; mostly none does, and that is all it costs.
    """

    def __init__(self, *, contacts: bool = False, patterns: Sequence[str] = ()) -> None:
        self._rules: tuple[Rule, ...] = (*SECRETS, *(CONTACTS if contacts else ()), *own(patterns))
        self._finders = [Finder(rule) for rule in self._rules]
        self._prechecks = {at: rule.precheck for at, rule in enumerate(self._rules) if rule.precheck}
        # Where a key goes on in the next line: not all of them begin with what tells of them.
        self._wrapped = {
            at: compiled(rf"(?:{each})\S*{_LINE_END}|{_LINE_END}\S*(?:{each})")
            for at, rule in enumerate(self._rules)
            if rule.kind in ("key", "token")
            for each in [rule.trigger or rule.pattern]
        }
        self._contacts = frozenset(at for at, rule in enumerate(self._rules) if rule in CONTACTS)
        # Written for plain text, not for JSON or for texts joined: the search beforehand may miss what they mean.
        self._has_own = bool(patterns)
        self._redacted: LruCache[str, str] = LruCache(_CACHE_BYTES, _weigh)
        self._set = _build_set([rule.trigger or rule.pattern for rule in self._rules] + [_ENCODED, large_files.NOTE])
        self._encoded, self._note = len(self._rules), len(self._rules) + 1

    def redact_text(self, text: str) -> str:
        """Return text without its secrets; where it is JSON it stays so."""
        return self.redact_value(text)

    def redact_any(self, value: Any) -> Any:
        """Return any value of Python as one that JSON can hold, without its secrets; never raise.

        Sets become lists, models and dataclasses dictionaries, exceptions and paths text. What is consumed by looking
        at it, such as a generator or a file, is named by its type.
        """
        try:
            with counted_together():
                return self.redact_value(to_plain(value))
        except Exception:  # noqa: BLE001 - whatever a value does when it is looked at
            return f"[withheld: a {type(value).__name__} that cannot be read]"

    def may_apply(self, texts: Iterable[str]) -> bool:
        """Whether any rule may apply somewhere in these texts, by one search of all of them."""
        if self._has_own:
            return True
        listed = list(texts)
        return any(len(each) >= binary.LONG and binary.has_long_base64(each) for each in listed) or bool(
            self._search("\n".join(listed))
        )

    def redact_messages(self, messages: MessagesJson) -> MessagesJson:
        """Return a conversation without its secrets; each of its parts is searched once."""
        if not self._redacted.unlike(messages.parts):
            return messages
        new = self.new_parts([messages])
        if new and not self.may_apply(new):
            self.cache_clean(new)
        clean = [self._redact_part(part) for part in messages.parts]
        return messages if all(map(eq, clean, messages.parts)) else MessagesJson(clean)

    def new_parts(self, conversations: Iterable[MessagesJson]) -> list[str]:
        """Return the parts of these conversations that have not been searched yet."""
        unlike = [part for messages in conversations for part in self._redacted.unlike(messages.parts)]
        return [part for part in unlike if self._redacted.get(part) is None]

    def cache_clean(self, parts: Iterable[str]) -> None:
        """Cache these parts of conversations as ones without secrets."""
        for part in parts:
            self._redacted.put(part, part)

    def _redact_part(self, part: str) -> str:
        clean = self._redacted.get(part)
        if clean is None:
            with collecting_apart() as media:
                clean = self.redact_text(part)
            clean = part if clean == part else TextWithMedia(clean, media) if media else clean
            self._redacted.put(part, clean)
        return collect(clean)

    def redact_value(self, value: Any, *, searched: Searched = False, contacts: bool = True, depth: int = 0) -> Any:
        """Return a value of any shape without what the rules find in it, and without fields of sensitive names.

        `searched` tells that no rule applies to any text in it, or to which ones; `contacts` whether those of people go
        as well.
        """
        if depth > _MAX_DEPTH:
            return "[withheld: nested too deeply]"
        match value:
            case MessagesJson():
                return self.redact_messages(value)
            case str():
                # RE2 makes an empty one of the text's own class, which not every kind of string lets be made.
                is_clean = searched is True or (searched is not False and value in searched)
                return value if is_clean else self._redact_string(str.__str__(value), contacts, depth)
            case bytes():
                return binary.describe(value)
            case dict():
                return self._redact_fields(value, searched, contacts, depth)
            case list() | tuple():
                return self._redact_items(value, searched, contacts, depth)
            case _:
                return value

    def redact_field(
        self, name: str, value: Any, *, searched: Searched = False, contacts: bool = True, depth: int = 0
    ) -> Any:
        """Return the value of a field of this name without its secrets; all of it is one where the name says so."""
        if is_sensitive(name) and not _describes(name, value):
            return _hide(name, value)
        if value.__class__ is int and value > 10**11 and is_card_name(name[-100:]) and is_card(str(value)):
            return "[redacted card]"
        return self.redact_value(value, searched=searched, contacts=contacts, depth=depth + 1)

    def _redact_string(self, text: str, contacts: bool, depth: int) -> str:
        text = binary.describe_long_base64(text)
        try:
            found = self._find(text, contacts)
        except UnicodeEncodeError:  # half a surrogate
            return self._redact_string(text.encode("utf-8", "replace").decode(), contacts, depth)
        if self._note in found:
            return self._redact_string(large_files.replace(text, binary.describe_file), contacts, depth)
        if not found or (found == [self._encoded] and not self._find(_decode(text), contacts)):
            return text
        parsed = parse(text)
        if parsed is None:
            return self._redact_plain(text, found, contacts)
        clean = self.redact_value(parsed, searched=self._searched(parsed), contacts=contacts, depth=depth + 1)
        return text if clean == parsed else dump(clean)

    def _searched(self, value: Any) -> Searched:
        texts = list(dict.fromkeys(texts_in(value)))
        return frozenset(texts).difference(self._suspects(texts)) if self.may_apply(texts) else True

    def _suspects(self, texts: Sequence[str]) -> Sequence[str]:
        """Return those texts to which a rule may apply, of some to which one may."""
        if len(texts) < 2:
            return texts
        half = len(texts) // 2
        return [each for part in (texts[:half], texts[half:]) if self.may_apply(part) for each in self._suspects(part)]

    def _find(self, text: str, contacts: bool) -> list[int]:
        found = self._search(text)
        if self._has_own:
            found |= {at for at in range(len(self._rules)) if self._rules[at].kind == "text"}
        return sorted(found if contacts else found - self._contacts)

    def _search(self, text: str) -> set[int]:
        """Return which rules may apply to a text."""
        found: list[int] = self._set.Match(text) or []
        return {at for at in found if (check := self._prechecks.get(at)) is None or check(text)}

    def _redact_plain(self, text: str, found: Sequence[int], contacts: bool) -> str:
        for at in found:
            if (wrapped := self._wrapped.get(at)) and wrapped.search(text):
                text = self._redact_wrapped(text, self._finders[at])
            if at < self._encoded:
                text = _apply(text, self._finders[at].edits(text))
        return self._redact_encoded(text, contacts) if self._encoded in found else text

    def _redact_wrapped(self, text: str, finder: Finder) -> str:
        """Return text without the keys that go on in the next line."""
        joined, starts, shifts = _join_with_positions(text)
        edits = [
            (start + shifts[bisect_right(starts, start) - 1], end + shifts[bisect_left(starts, end) - 1], after)
            for start, end, after in finder.edits(joined)
            if bisect_right(starts, start) < bisect_left(starts, end)
        ]
        return _apply(text, edits)

    def _redact_encoded(self, text: str, contacts: bool) -> str:
        """Return text without the secrets that are seen only when its encoded characters are read."""
        decoded = _decode(text)
        read = None
        for at in self._find(decoded, contacts) if decoded != text else ():
            if at >= self._encoded:
                continue
            decoded, starts, shifts = read = read or _decode_with_positions(text)
            edits = [
                (start + shifts[bisect_right(starts, start) - 1], end + shifts[bisect_right(starts, end) - 1], after)
                for start, end, after in self._finders[at].edits(decoded)
            ]
            if edits:
                text, read = _apply(text, edits), None
        return text

    def _redact_items(self, items: Sequence[Any], searched: Searched, contacts: bool, depth: int) -> list[Any]:
        if searched is not True:
            items = _items_without_keys(_items_without_logins(items))
        clean: list[Any] = []
        before: Any = None
        for item in items:
            if _is_pair(item):
                name = self.redact_value(item[0], searched=searched, contacts=contacts, depth=depth + 2)
                clean.append([name, _hide(item[0], item[1])])
            elif _is_option(before) and isinstance(item, str) and not item.startswith("-"):
                clean.append(_hide(before, item))
            else:
                clean.append(self.redact_value(item, searched=searched, contacts=contacts, depth=depth + 1))
            before = item
        return clean

    def _redact_fields(self, fields: dict[Any, Any], searched: Searched, contacts: bool, depth: int) -> dict[str, Any]:
        pair = _name_of_pair(fields)
        is_text_token = "token" in fields and not _BESIDE_TEXT_TOKEN.isdisjoint(fields)
        clean: dict[str, Any] = {}
        for name, value in (fields if searched is True else _fields_without_logins(fields)).items():
            key = name if isinstance(name, str) else str(name)
            called = pair if pair and name in _VALUES else "text" if is_text_token and key == "token" else key
            clean[self.redact_value(key, searched=searched, contacts=contacts, depth=depth)] = self.redact_field(
                called, value, searched=searched, contacts=contacts, depth=depth
            )
        return clean

    def needs_no_walk(self, fields: Mapping[str, Any]) -> bool:
        """Whether fields in whose texts no rule applies are free of secrets: by their names, and nothing is nested."""
        return not any(map(_has_parts, fields.values())) and not any(map(is_sensitive, fields))


def texts_in(value: Any) -> Iterator[str]:
    """Return all texts in a value, but for conversations, which are searched part by part."""
    left = [value]
    while left:
        match left.pop():
            case MessagesJson():
                pass
            case str() as text:
                yield str.__str__(text)
            case dict() as fields:
                yield from map(str, fields)
                left += fields.values()
            case list() | tuple() as items:
                left += items
            case _:
                pass


def _has_parts(value: Any) -> bool:
    kind = value.__class__
    if kind is str or kind is float or kind is bool or kind is MessagesJson:
        return False
    if kind is int:
        return value > 10**11
    if isinstance(value, list):
        return not all(isinstance(each, (str, float, bool)) or each.__class__ is int for each in value)
    return isinstance(value, (bytes, dict, tuple))


def _decode(text: str) -> str:
    """Return text with its encoded characters read, fast: where one follows an odd sign it may be another one."""
    if _is_sparse(text):
        return _decode_with_positions(text)[0]
    if "\\u" in text:
        text = _decode_escapes(text)
    if "&" in text:
        text = _decode_entities(text)
    for _ in range(_MAX_ENCODED):
        if not _PERCENT.search(text):
            break
        text = _decode_percent(text)
    return text


def _is_sparse(text: str) -> bool:
    """Whether few characters are encoded; the first part of a text with many of them tells."""
    count = 0
    for at in range(0, len(text), _PIECE):
        # To count one character is much faster than to count two.
        escapes = text.count("\\u", at, at + _PIECE) if text.find("\\", at, at + _PIECE) >= 0 else 0
        count += escapes + text.count("%", at, at + _PIECE) + text.count("&", at, at + _PIECE)
        if count * _SPARSE >= len(text):
            return False
    return True


def _decode_entities(text: str) -> str:
    for _ in range(_MAX_ENCODED):
        if "&amp;" not in text:
            break
        text = text.replace("&amp;", "&")
    if not _ENTITY.search(text):
        return text
    for entity, character in _ENTITIES.items():
        text = text.replace(entity, character)
    numbered = set(_NUMBERED_ENTITY.findall(text)) if "&#" in text else ()
    if len(numbered) > _MAX_REPLACED:
        return _decode_with_positions(text)[0]
    for entity in numbered:
        text = text.replace(entity, html.unescape(entity))
    return text


def _decode_escapes(text: str) -> str:
    if _OTHER_ESCAPE.search(text):
        if "\\\\u" in text:
            text = _ESCAPED_ESCAPE.sub(r"\\u", text)
        # All other backslashes stand for themselves.
        text = text.replace("\\", "\\\\").replace("\\\\u", "\\u")
    encoded = text.encode() if text.isascii() else text.encode("latin-1", "backslashreplace")
    decoded = encoded.decode("unicode_escape", "replace")
    try:
        decoded.encode()
    except UnicodeEncodeError:  # half a surrogate
        return decoded.encode("utf-8", "replace").decode()
    return decoded


def _decode_percent(text: str) -> str:
    # Quoted-printable is the same with another sign, and read in C; there, two signs and one that ends a line differ.
    encoded = text.encode()
    if _ODD_SIGN.search(encoded):
        encoded = re.sub(rb"%(?=[%\r\n])", b" ", encoded)
    decoded = a2b_qp(encoded.translate(_TO_QUOTED))
    return decoded.replace(b"\x01", b"=").decode("utf-8", "replace")


def _decode_with_positions(text: str) -> tuple[str, list[int], list[int]]:
    """Return text with its encoded characters read; from each of these positions on the original is so much longer."""
    return _replace(
        text, ((*(span := each.span()), _character(text[slice(*span)])) for each in find_all(_CHARACTER, text))
    )


def _join_with_positions(text: str) -> tuple[str, list[int], list[int]]:
    """Return text whose wrapped lines are joined; from each of these positions on the original is so much longer."""
    ends = (_WRAP.match(text, each.start()) for each in find_all(_END_OF_LINE, text))
    return _replace(text, ((*wrap.span(), "") for wrap in ends if wrap))


def _replace(text: str, edits: Iterable[tuple[int, int, str]]) -> tuple[str, list[int], list[int]]:
    parts: list[str] = []
    starts, shifts = [0], [0]
    end = length = 0
    for start, stop, new in edits:
        parts += (text[end:start], new)
        length += start - end + len(new)
        end = stop
        starts.append(length)
        shifts.append(end - length)
    parts.append(text[end:])
    return "".join(parts), starts, shifts


def _character(encoded: str) -> str:
    return _short_character(encoded) if len(encoded) < _MAX_CACHED else _long_character(encoded)


@lru_cache(maxsize=4096)
def _short_character(encoded: str) -> str:
    return _long_character(encoded)


def _long_character(encoded: str) -> str:
    if encoded.endswith(";"):
        return html.unescape(f"&{_ENTITY_START.sub('', encoded)}")[:1] or " "
    if encoded.startswith("%"):
        return unquote(_ENCODED_SIGN.sub(r"%\1", encoded))[:1]
    return chr(int(encoded[-4:], 16))


def _apply(text: str, edits: Sequence[tuple[int, int, str]]) -> str:
    parts: list[str] = []
    last = 0
    for start, end, after in edits:
        parts += (text[last:start], after)
        last = end
    return "".join((*parts, text[last:])) if parts else text


def _name_of_pair(fields: dict[Any, Any]) -> str | None:
    """Return the sensitive name that stands beside its value."""
    names = (fields[key] for key in _NAMES if key in fields) if not _VALUES.isdisjoint(fields) else ()
    return next((name for name in names if isinstance(name, str) and is_sensitive(name)), None)


def _is_pair(item: Any) -> bool:
    return isinstance(item, (list, tuple)) and len(item) == 2 and isinstance(item[0], str) and is_sensitive(item[0])


def _is_option(item: Any) -> bool:
    return isinstance(item, str) and item.startswith("--") and is_sensitive(item)


def _hide(name: str, value: Any) -> Any:
    match value:
        case bool() | None:
            return value
        case str() | int() | float() if says_nothing(name, str(value)):
            return value
        case dict():
            return {each: _hide(name, part) for each, part in value.items()}
        case list() | tuple():
            return [_hide(name, each) for each in value]
        case _:
            return "[redacted]"


def _describes(name: str, value: Any) -> bool:
    """Whether a value describes an argument or an operation of that name, as the definition of a tool does."""
    if not isinstance(value, dict):
        return False
    if is_operation(name):
        return True
    kind = value.get("type")
    return isinstance(kind, list) or kind in _TYPES or not value.keys().isdisjoint({"$ref", "anyOf", "allOf", "oneOf"})


def _items_without_keys(items: Sequence[Any]) -> Sequence[Any]:
    """Return lines without those of a private key, which begins in one of them and ends in another."""
    if not any(isinstance(each, str) and "PRIVATE KEY" in each for each in items):
        return items
    clean: list[Any] = []
    within = False
    for item in items:
        is_text = isinstance(item, str)
        begins = is_text and "-----BEGIN " in item and "PRIVATE KEY" in item
        ends = is_text and "-----END " in item
        if begins:
            clean.append("[redacted private key]")
        elif not within or not is_text:
            clean.append(item)
        within = (within or begins) and is_text and not ends
    return clean


def _items_without_logins(arguments: Sequence[Any]) -> Sequence[Any]:
    """Return a list without the logins that curl is given in it."""
    start = next((at for at, each in enumerate(arguments) if _is_curl(each)), None)
    return arguments if start is None else [*arguments[:start], *_hide_logins(arguments[start:])]


def _fields_without_logins(fields: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Return fields without the logins in their lists, where one of them names curl as the program of these."""
    if not any(map(_is_curl, fields.values())):
        return fields
    return {name: _hide_logins(each) if isinstance(each, (list, tuple)) else each for name, each in fields.items()}


def _hide_logins(arguments: Sequence[Any]) -> list[Any]:
    return [_hide_login(before, each) for before, each in zip((None, *arguments), arguments, strict=False)]


def _hide_login(before: Any, argument: Any) -> Any:
    found = _LOGIN.fullmatch(argument) if isinstance(argument, str) else None
    if not found or is_variable(found["password"]):
        return argument
    is_given = bool(found["option"]) or (isinstance(before, str) and _USER.fullmatch(before))
    return f"{found['option']}[redacted login]" if is_given else argument


def _is_curl(item: Any) -> bool:
    return isinstance(item, str) and bool(_CURL.fullmatch(item))


def _build_set(patterns: Sequence[str]) -> Any:
    options = re2.Options()
    options.max_mem = 64 << 20
    options.log_errors = False
    found = re2.Set.SearchSet(options)
    for pattern in patterns:
        found.Add(pattern)
    found.Compile()
    return found
