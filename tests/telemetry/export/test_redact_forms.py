"""The forms in which people paste secrets, and what only looks like one."""

import json
import random
import string
from html import escape
from urllib.parse import quote

import pytest

from telemetry.export.redact import Redactor
from tests.telemetry.planted import LETTERS

REDACTOR = Redactor()
TOKEN = "ghp_" + LETTERS[:36]
PASSWORD = "Hunter2" + "xYz9"

# What is called a secret, in the syntaxes of programs, settings, shells and people.
NAMED = (
    f"API key: {PASSWORD}",
    f"<password>{PASSWORD}</password>",
    f"<password>\n  {PASSWORD}\n</password>",
    f'<add key="Password" value="{PASSWORD}"/>',
    f"- name: DB_PASSWORD\n  value: {PASSWORD}",
    f'- name: "DB_PASSWORD"\n  value: "{PASSWORD}"',
    f'variable {{\n  name = "X_API_KEY"\n  secret_value = "{PASSWORD}"\n}}',
    f"password: |\n  {PASSWORD}\n  and {PASSWORD}\nuser: ada",
    f"password: >-\n    {PASSWORD}\n",
    f'password := "{PASSWORD}"',
    f"password := `{PASSWORD}`",
    f'token ::= "{PASSWORD}"',
    f'token ?= "{PASSWORD}"',
    f'$token .= "{PASSWORD}";',
    f'"token" => "{PASSWORD}"',
    f'const apiKey: string = "{PASSWORD}"',
    f'var apiToken string = "{PASSWORD}"',
    f'System.setProperty("API_TOKEN", "{PASSWORD}")',
    f'os.environ.setdefault("API_TOKEN", "{PASSWORD}")',
    f"postgresql://app:pa/{PASSWORD}@db",
    f"mysql -u root -p{PASSWORD} shop",
    f"sshpass -p {PASSWORD} ssh host",
    f"CREATE USER ada IDENTIFIED BY '{PASSWORD}'",
    f"ENV DB_PASSWORD {PASSWORD}",
    f"machine a.org login ada password {PASSWORD}",
    f"curl --user ada:'{PASSWORD}' https://a.org",
    f"Passwort: {PASSWORD}",
    f"Kennwort = {PASSWORD}",
    f"contraseña: {PASSWORD}",
    f"mot de passe : {PASSWORD}",
    f"senha: {PASSWORD}",
    f"wachtwoord={PASSWORD}",
    f"hasło: {PASSWORD}",
    f"пароль: {PASSWORD}",
    f"密码\N{FULLWIDTH COLON}{PASSWORD}",
    f"パスワード: {PASSWORD}",
    f"password = b'{PASSWORD}'",
    f'password = rf"{PASSWORD}"',
    f'password = """{PASSWORD}"""',
    f"password = '''{PASSWORD}'''",
    f"ALTER USER ada WITH PASSWORD '{PASSWORD}'",
    f"CREATE ROLE ada LOGIN PASSWORD '{PASSWORD}'",
    f"docker login -u ada -p {PASSWORD} a.org",
    f'<password type="plain">{PASSWORD}</password>',
    f'<property name="db.password">{PASSWORD}</property>',
    f"https://{PASSWORD}:@api.example.org/v1",
    f'"a": "\\u0026lt;password\\u0026gt;{PASSWORD}\\u0026lt;/password\\u0026gt;',
    f'password = "{PASSWORD}{"ä" * 9_000}"',
)


@pytest.mark.parametrize("text", NAMED)
def test_what_is_called_a_secret_goes(text: str) -> None:
    """Whatever the syntax of the name and its value, the value goes: as text, and within JSON."""
    assert PASSWORD not in REDACTOR.redact_text(text)
    assert PASSWORD not in REDACTOR.redact_text(json.dumps({"content": [text]}))
    assert PASSWORD not in REDACTOR.redact_text(f"Look:\n{text}\nand so on.")


ENCODED = {
    "once": lambda text: quote(text, safe=""),
    "twice": lambda text: quote(quote(text, safe=""), safe=""),
    "thrice": lambda text: quote(quote(quote(text, safe=""), safe=""), safe=""),
    "entities": lambda text: escape(text, quote=True).replace(":", "&#58;").replace("=", "&#x3D;"),
    "entities in an attribute": lambda text: escape(escape(text, quote=True)),
}


@pytest.mark.parametrize("encode", ENCODED.values(), ids=ENCODED)
@pytest.mark.parametrize(
    ("text", "secret"),
    [
        *((f"{before}{TOKEN}", TOKEN) for before in (" ", "=", '"', ":", "/", "\n", "<")),
        (f"postgres://app:{PASSWORD}@db/x", PASSWORD),
        (f'{{"password": "{PASSWORD}"}}', PASSWORD),
        (f"a=1&password={PASSWORD}&b=2", PASSWORD),
    ],
)
def test_encoded_characters_are_borders(text: str, secret: str, encode: object) -> None:
    """A secret whose surroundings are percent-encoded, once or more, or written as entities, goes as well."""
    assert callable(encode)
    for whole in (f"http://h.example/s?q={encode(text)}", f"see {encode(text)} there", f"100% {encode(text)}"):
        assert secret not in REDACTOR.redact_text(whole)


def test_what_is_encoded_beside_a_secret_stays_so() -> None:
    """Only what stood for the secret is written anew, the rest of an address is as it was."""
    address = f"http://h.example/a%20b/?q=%20{TOKEN}&r=%2Fx"

    assert REDACTOR.redact_text(address) == "http://h.example/a%20b/?q= [redacted key]&r=%2Fx"


def _pem() -> list[str]:
    made = random.Random(1)
    lines = ["".join(made.choices(string.ascii_letters + string.digits + "+/", k=64)) for _ in range(12)]
    return ["-----BEGIN RSA PRIVATE KEY-----", *lines, "-----END RSA PRIVATE KEY-----"]


PEM = {
    "plain": lambda lines: "\n".join(lines),
    "Windows": lambda lines: "\r\n".join(lines),
    "mail quote": lambda lines: "\n".join("> " + line for line in lines),
    "stack": lambda lines: "\n".join("  | " + line for line in lines),
    "comment": lambda lines: "\n".join("# " + line for line in lines),
    "comment in C": lambda lines: "\n".join(" * " + line for line in lines),
    "JSON list": json.dumps,
    "indented JSON list": lambda lines: json.dumps(lines, indent=2),
    "repr": str,
    "file name": lambda lines: "\n".join("id_rsa:" + line for line in lines),
    "br": lambda lines: "<br>".join(lines),
    "joined strings": lambda lines: " +\n".join(f'"{line}\\n"' for line in lines),
    "encoded": lambda lines: "%0A".join(lines),
    "escaped": lambda lines: "\\n".join(lines),
    "list": lambda lines: lines,
}


@pytest.mark.parametrize("is_cut", [False, True])
@pytest.mark.parametrize("form", PEM.values(), ids=PEM)
def test_a_private_key_goes_with_all_its_lines(form: object, is_cut: bool) -> None:
    """Whatever stands before or between the lines of a private key, none of them stays, its end or not."""
    assert callable(form)
    lines = _pem()
    given = form(lines[:-1] if is_cut else lines)

    clean = str(REDACTOR.redact_value({"content": given}))

    assert [line for line in lines[1:-1] if line in clean] == []
    assert "[redacted private key]" in clean


HARMLESS = (
    "Sum these: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15",
    "SyntaxError: Unexpected token: '}'",
    "cost per token: $0.000002",
    "Time to first token: 0.8s",
    "WHERE token = 'abc'",
    "password = models.CharField(max_length=9)",
    "token = tokens[index]",
    'token = os.environ["TOKEN"]',
    "password = settings.database.password",
    '{"token":"The","pos":"DET"}',
    '[{"token": "secret", "logprob": -0.5, "bytes": [115]}]',
    '{"credentials":"include"}',
    "fetch(url, {credentials: 'same-origin'})",
    "--color-token: #ff00aa1",
    "?code=python3",
    "ssh://git@github.com/a/b",
    "http://host:8080/path/user@example.com",
    "sk-refactor-login-page-v2-today",
    "DATABASE_PASSWORD=$PW and API_KEY=${API_KEY:-none} and token: ${{ secrets.TOKEN }}",
    "password: <your password>",
    "API_KEY=\nOTHER=1",
    'curl -H "Authorization: Bearer $TOKEN" https://a.org',
    "implementation 'io.jsonwebtoken:jjwt-jackson:0.11.2'",
    "1795388189717, 20261130031756123, 6203456789012 and 4000000000000000000",
    '{"id": 4111111111111111, "ids": [5500000000000004]}',
    "if token == 'abc': pass",
    "self.webhook_secret = webhook_secret",
    "BearerToken = BearerTokenGenerator",
    "def payload(self, token: JWTAccessTokenClaims): ...",
    "S3FileSystem(key=access_key, secret=secret_key)",
    'headers["Authorization"] = f"Bearer {self.token}"',
    'auth = f"{auth}:{password}"',
    "--- PASS: TestUnicode",
    '<a accesskey="n" href="#next">',
    '{"input_token": "position", "output_token": "NextMarker"}',
    'password="YOUR_PASSWORD", api_key="sk-...", token=xxxxxxxx, secret="***"',
    "SYS_LOOKUP_DCOOKIE = 18",
    "a value identified by `key`, or by 'name'",
    "postgresql://user:password@host:5432/db",
    "data:image/jpeg;base64,1234",
    'Errorf("trafficSecret = %x, want %x", secret)',
    "http://a.org/video_box." + "ico-" + "7a388b69018576d24b59331fd60aab0c.png",
    "  keyVaultToStoreSecrets: cmp2-qat-1208358310",
    "-e SUMO_ACCESS_KEY=`etcdctl get /sumologic_secret`",
    f"...6wqX6fNUXA+{'EZ' + 'AK'}{LETTERS[:40]}{LETTERS[:19]}/3VmWq...",
    f'Identity="USK@u2vn3L,4~q8Q~{LETTERS[:38]},AQ"',
)


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text: str) -> None:
    """Words beside "token", code, styles, sums, prices, placeholders and numbers are left alone."""
    assert REDACTOR.redact_text(text) == text


@pytest.mark.parametrize(
    "key",
    ["ico-" + LETTERS[:32], "EZ" + f"AK{LETTERS[:40]}{LETTERS[:14]}", f"abc8Q~{LETTERS[:31]}", f"abc8Q~{LETTERS[:34]}"],
)
def test_what_looks_like_it_does_not_protect_it(key: str) -> None:
    """A key of a form that other things have too goes where it is one."""
    for text in (key, f"it is {key}.", f'"{key}"', f"a={key}&b", f"{key}, {key}"):
        assert key not in REDACTOR.redact_text(text)


def test_of_long_numbers_few_are_cards() -> None:
    """Times and ids are no cards, but for the few that an issuer could have given out."""
    made = random.Random(2)
    times = [str(made.randrange(1_600_000_000_000, 1_900_000_000_000)) for _ in range(1000)]
    ids = ["".join(made.choices(string.digits, k=16)) for _ in range(1000)]

    assert [text for text in times if REDACTOR.redact_text(text) != text] == []
    assert len([text for text in ids if REDACTOR.redact_text(text) != text]) < 30


@pytest.mark.parametrize(
    "card",
    [
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "4111111111111111",
        "378282246310005",
        "3782 822463 10005",
        "5555555555554444",
        "2223003122003222",
        "6011111111111117",
        "3530111333300000",
        "30569309025904",
    ],
)
def test_cards_of_all_issuers_go(card: str) -> None:
    """In one piece or in its groups, the number of a card goes."""
    assert REDACTOR.redact_text(f"my card is {card}, thanks") == "my card is [redacted card], thanks"
    assert REDACTOR.redact_text(json.dumps({"n": card})) == '{"n":"[redacted card]"}'


WRAPS = {
    "line": "\n",
    "Windows": "\r\n",
    "indented": "\n    ",
    "mail": "=\n",
    "shell": "\\\n",
    "quoted": "\n> ",
    "escaped": "\\n",
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_a_key_that_goes_on_in_the_next_line_goes(wrap: str) -> None:
    """Wherever a line was wrapped within a key or a token, both of its parts go, and the next line stays."""
    jwt = f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.{LETTERS[:43]}"
    for whole, at in ((TOKEN, 16), (TOKEN, 28), (jwt, 35), (jwt, 60)):
        first, second = whole[:at], whole[at:]
        clean = REDACTOR.redact_text(f"use {first}{wrap}{second} now{wrap}and OTHER=1")
        assert first[-8:] not in clean
        assert second not in clean
        assert clean.endswith(f" now{wrap}and OTHER=1")


def test_a_line_after_a_key_stays() -> None:
    """What follows a whole key in the next line is no part of it."""
    assert REDACTOR.redact_text(f"A={TOKEN}\nOTHER_2=1\n{TOKEN}\nand so on") == (
        "A=[redacted key]\nOTHER_2=1\n[redacted key]\nand so on"
    )
