"""Text and values without their secrets."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from operator import eq
from typing import Any

import re2

from telemetry.json_text import dump, parse
from telemetry.redact import binary
from telemetry.redact.arguments import fields_without_logins, without_logins
from telemetry.redact.patterns import CONTACTS, SECRETS, Rule, compiled, is_sensitive, own, says_nothing
from telemetry.remembered import Remembered
from telemetry.said import Said

# JSON may write any letter as a number: then nothing is ruled out before it is parsed.
_ESCAPED = r"\\u00[2-7][0-9a-fA-F]"
_LETTER = compiled(r"\\+u00([2-7][0-9a-fA-F])")
# Protobuf reads a hundred levels, of which a value in a value takes three.
_DEEPEST = 28
_LONG_NUMBER = 10**12


# A field may be written as a pair: what it is called under one of these names, what it holds under one of those.
_NAMES = ("name", "Name", "key", "Key", "header", "field")
_VALUES = frozenset({"value", "Value"})
_TYPES = ("string", "number", "integer", "boolean", "object", "array", "null")

# Cleaned parts of conversations, in bytes; the turns of a thread have most of them in common.
_REMEMBERED = 32 * 1024 * 1024


@lru_cache(maxsize=4096)
def _is_sensitive_end(name: str) -> bool:
    return is_sensitive(name)


def _sensitive(name: str) -> bool:
    # It is the end of a name that tells, and whoever makes names of a megabyte gets no megabyte remembered.
    return _is_sensitive_end(name[-100:])


@lru_cache(maxsize=256)
def _one_is_sensitive(names: tuple[str, ...]) -> bool:
    return any(map(_sensitive, names))


class Fence:
    """Takes secrets out of text and values.

    One set of all expressions says in one pass which occur at all; mostly none does, and that is all it costs.
    """

    def __init__(self, *, contacts: bool = False, patterns: Sequence[str] = ()) -> None:
        self._rules: tuple[Rule, ...] = (*SECRETS, *(CONTACTS if contacts else ()), *own(patterns))
        self._compiled = [compiled(rule.pattern) for rule in self._rules]
        self.contacts = frozenset(at for at, rule in enumerate(self._rules) if rule in CONTACTS)
        self._all = frozenset(range(len(self._rules)))
        # Written for plain text, not for JSON or for texts joined: the search beforehand may miss what they mean.
        self._own = frozenset(range(len(self._rules) - len(patterns), len(self._rules)))
        self._clean: Remembered[str, str] = Remembered(_REMEMBERED)
        self._set = _searching([rule.pattern for rule in self._rules] + [_ESCAPED])

    def text(self, text: str) -> str:
        """Return text without its secrets; where it is JSON it stays so."""
        return self.value(text, self.kinds_in([text]))

    def kinds_in(self, texts: Iterable[str]) -> frozenset[int]:
        """Return which rules may apply somewhere in these texts."""
        found = frozenset(self._set.Match("\n".join(texts)) or ())
        return self._all if len(self._rules) in found else found | self._own

    def passes(self, fields: dict[str, Any]) -> bool:
        """Whether these fields may go as they are, if no rule applies to any text in them."""
        names = tuple(fields)
        known = len(names) < 100 and max(map(len, names), default=0) < 200
        named = _one_is_sensitive(names) if known else any(map(_sensitive, names))
        return not named and not any(map(_has_parts, fields.values()))

    def said(self, said: Said) -> Said:
        """Return a conversation without its secrets; each of its parts is searched once."""
        if not self._clean.unlike(said.parts):
            return said
        known = [(part, self._clean.get(part, len(part))) for part in said.parts]
        found = self._searched([part for part, clean in known if clean is None])
        clean = [found[part] if clean is None else clean for part, clean in known]
        return said if all(map(eq, clean, said.parts)) else Said(clean)

    def new_parts(self, conversations: Iterable[Said]) -> list[str]:
        """Return the parts of these conversations that nobody has searched yet."""
        unlike = [part for said in conversations for part in self._clean.unlike(said.parts)]
        return [part for part in unlike if self._clean.get(part, len(part)) is None]

    def remember(self, parts: Iterable[str]) -> None:
        """Remember these parts of conversations as ones without secrets."""
        for part in parts:
            self._clean.put(part, part, len(part))

    def _searched(self, parts: Sequence[str]) -> dict[str, str]:
        # One search of them all: mostly nothing is found, and each one lets go of the interpreter.
        kinds = self.kinds_in(parts) if parts else frozenset()
        found = {part: self.text(part) if kinds else part for part in parts}
        for part, clean in found.items():
            self._clean.put(part, part if clean == part else clean, len(part))
        return found

    def value(self, value: Any, kinds: frozenset[int], depth: int = 0) -> Any:
        """Return a value of any shape without what these rules find in it, and without fields of sensitive names."""
        if depth > _DEEPEST:
            return "[withheld: nested too deeply]"
        match value:
            case Said():
                return self.said(value)
            case str():
                # RE2 makes an empty one of the text's own class, which not every kind of string lets be made.
                return self._string(str.__str__(value), kinds, depth)
            case bytes():
                return binary.described(value)
            case dict():
                return self._fields(value, kinds, depth)
            case list() | tuple():
                items = without_logins(value) if kinds else value
                return [self._item(*two, kinds, depth + 1) for two in zip((None, *items), items, strict=False)]
            case int() if abs(value) >= _LONG_NUMBER:
                return value if (clean := self._plain(str(value), kinds)) == str(value) else clean
            case _:
                return value

    def _string(self, text: str, kinds: frozenset[int], depth: int) -> str:
        if not kinds:
            return text
        parsed = parse(text)
        if parsed is None:
            return self._spelled_out(text) if kinds == self._all else self._plain(text, kinds)
        clean = self.value(parsed, kinds, depth + 1)
        return text if clean == parsed else dump(clean)

    def _spelled_out(self, text: str) -> str:
        letters = _LETTER.sub(lambda found: chr(int(found[1], 16)), text)
        clean = self._plain(letters, self._all)
        return self._plain(text, self._all) if clean == letters else clean

    def _plain(self, text: str, kinds: frozenset[int]) -> str:
        # One pass of the set over this text is far cheaper than a substitution that finds nothing.
        for kind in sorted(kinds.intersection(found)) if (found := self._set.Match(text)) else ():
            text = self._compiled[kind].sub(self._rules[kind].left_of, text)
        return text

    def _item(self, before: Any, item: Any, kinds: frozenset[int], depth: int) -> Any:
        """An item may be a pair of name and value, or what is given to the option before it."""
        if _is_pair(item):
            return [self.value(item[0], kinds, depth + 1), _hidden(item[0], item[1])]
        is_given = _is_option(before) and isinstance(item, str) and not item.startswith("-")
        return _hidden(before, item) if is_given else self.value(item, kinds, depth)

    def _fields(self, fields: dict[Any, Any], kinds: frozenset[int], depth: int) -> dict[str, Any]:
        pair = _name_of_pair(fields)
        given = fields_without_logins(fields) if kinds else fields
        return {
            self._plain(str(name), kinds): self.field(
                pair if pair and name in _VALUES else str(name), each, kinds, depth
            )
            for name, each in given.items()
        }

    def field(self, name: str, value: Any, kinds: frozenset[int], depth: int = 0) -> Any:
        """Return the value of a field of this name without its secrets; all of it is one where the name says so."""
        if _sensitive(name) and not _is_schema(value):
            return _hidden(name, value)
        return self.value(value, kinds, depth + 1)


def _has_parts(value: Any) -> bool:
    if isinstance(value, (str, int, float)):
        return False
    if isinstance(value, list):
        return not all(isinstance(each, (str, int, float)) for each in value)
    return isinstance(value, (bytes, dict))


def _name_of_pair(fields: dict[Any, Any]) -> str | None:
    """Return the sensitive name that stands beside its value."""
    names = (fields[key] for key in _NAMES if key in fields) if not _VALUES.isdisjoint(fields) else ()
    return next((name for name in names if isinstance(name, str) and _sensitive(name)), None)


def _is_pair(item: Any) -> bool:
    return isinstance(item, (list, tuple)) and len(item) == 2 and isinstance(item[0], str) and _sensitive(item[0])


def _is_option(item: Any) -> bool:
    return isinstance(item, str) and item.startswith("--") and _sensitive(item)


def _hidden(name: str, value: Any) -> Any:
    match value:
        case bool() | None:
            return value
        case str() | int() | float() if says_nothing(name, str(value)):
            return value
        case dict():
            return {each: _hidden(name, part) for each, part in value.items()}
        case list() | tuple():
            return [_hidden(name, each) for each in value]
        case _:
            return "[redacted]"


def _is_schema(value: Any) -> bool:
    """A tool's description may have an argument of that name, and says of what type it is."""
    if not isinstance(value, dict):
        return False
    kind = value.get("type")
    return isinstance(kind, list) or kind in _TYPES or not value.keys().isdisjoint({"$ref", "anyOf", "allOf", "oneOf"})


def _searching(patterns: Sequence[str]) -> Any:
    options = re2.Options()
    options.max_mem = 64 << 20
    options.log_errors = False
    searching = re2.Set.SearchSet(options)
    for pattern in patterns:
        searching.Add(pattern)
    searching.Compile()
    return searching
