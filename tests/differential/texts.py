"""Texts of many kinds, a million characters of each: what programs hold, and what somebody may craft to be slow."""

import base64
import json
import random
from itertools import cycle, islice

SIZE = 1_000_000
# fmt: off
_WORDS = [
    "the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "seven", "wizards", "make", "toxic",
    "brew", "for", "the", "evil", "queen", "and", "jack;", "his", "friends", "were", "told", "that,", "in", "1987,",
    "nobody", "would", "ever", "come", "back", "from", "there:", "not", "without", "some", "more", "of", "those.",
]
# fmt: on


def _filled(piece: str) -> str:
    return (piece * (SIZE // len(piece) + 1))[:SIZE]


def prose(seed: int) -> str:
    """Return text as people write it, another one for each seed."""
    chosen = random.Random(seed)
    return " ".join(chosen.choices(_WORDS, k=SIZE // 4))[:SIZE]


def _bytes(seed: int) -> bytes:
    return random.Random(seed).randbytes(SIZE)


def _numbered(form: str) -> str:
    return "".join(islice(map(form.format, cycle(range(10**4, 10**5))), SIZE // (len(form) + 1)))[:SIZE]


# What programs hold: no more than three times the cost of prose, a byte.
USUAL = {
    "base64": base64.b64encode(_bytes(1)).decode()[:SIZE],
    "base64 for addresses": base64.urlsafe_b64encode(_bytes(2)).decode()[:SIZE],
    "base64 in lines": base64.encodebytes(_bytes(3)).decode()[:SIZE],
    "hexadecimal digits": _bytes(4).hex()[:SIZE],
    "digits": "".join(random.Random(5).choices("0123456789", k=SIZE)),
    "numbers": _numbered("{}, "),
    "one word": "a" * SIZE,
    "long words": _filled("abcdefgh" * 20 + " "),
    "brackets": "[" * SIZE,
    "quotes": '"' * SIZE,
    "dots": "." * SIZE,
    "blanks": " " * SIZE,
    "code": _filled("def f(x):\n    return {'a': x[0], 'b': (x + 1) * 2}\n"),
    "log lines": _numbered("2026-01-02 03:04:05,123 INFO module: message id={} took 12ms\n"),
    "table": _numbered("{},1.75,name,2020-01-02\n"),
    "addresses": _numbered("https://example.com/a/{}?q=x&y=z "),
    "page": _filled('<div class="a"><p>some text &amp; more</p></div>'),
    "Chinese": _filled("我们在天气很好的时候去公园散步。"),
    "identifiers": _filled("0f8fad5b-d9cb-469f-a165-70867728950e "),
}
# What is hardly anything but what may be a secret, or has to be read as something else first: up to fifteen times.
UNUSUAL = {
    "JSON": json.dumps([{"id": each, "name": f"row {each}", "price": each * 1.5} for each in range(25_000)])[:SIZE],
    "numbers like cards": "".join(f"{random.Random(each).randrange(10**15, 10**16)} " for each in range(SIZE // 17)),
    "names of secrets": _filled("password: "),
    "names of secrets in JSON": _filled('{"token": '),
    "options": _filled("--password "),
    "beginnings of keys": _filled("sk-"),
    "beginnings of tokens": _filled("eyJ"),
    "beginnings of private keys": _filled("-----BEGIN PRIVATE KEY-----\n"),
    "data addresses": _filled("data:image/png;base64,"),
    "logins": _filled("://a:b"),
    "commands": _filled("curl -u "),
    "elements": _filled("<password>"),
    "escapes": _filled("\\u00e9"),
    "percent signs": _filled("%20"),
    "entities": _filled("&lt;&#39;a&#39;&gt; and "),
    "backslashes": "\\" * SIZE,
    "backslashes before an escape": "password=x9y8z7w6v5 " + "\\" * (SIZE - 30) + "u0041",
    "entities of entities": "password=x9y8z7w6v5 &" + "amp;" * (SIZE // 4 - 10) + "lt;",
    "signs of signs": "password=x9y8z7w6v5 %" + "25" * (SIZE // 2 - 20) + "41",
    "ends of lines": "\n" * SIZE,
    "halves of surrogate pairs": "\ud83d" * SIZE,
}
