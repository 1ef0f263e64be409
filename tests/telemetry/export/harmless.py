"""Texts without secrets: code, documents, data, prose, logs and numbers."""

# ruff: noqa: RUF001 - prose in its own letters

import json
import os
import random
import sysconfig
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from telemetry.export.redact import binary

# What is installed is what people write, in the languages of these names; drawn at random, so many of each.
WRITTEN = {
    "Python": ((".py",), 1500),
    "Python stubs": ((".pyi",), 250),
    "Cython": ((".pyx",), 100),
    "JavaScript": ((".js",), 600),
    "TypeScript": ((".ts",), 50),
    "C": ((".c", ".h"), 350),
    "C++": ((".cpp", ".cc", ".hpp"), 60),
    "shell": ((".sh",), 40),
    "CSS": ((".css",), 200),
    "HTML": ((".html",), 100),
    "Protobuf": ((".proto",), 100),
    "JSON": ((".json",), 400),
    "TOML": ((".toml",), 60),
    "Markdown": ((".md",), 250),
    "metadata": (("METADATA",), 240),
    "text": ((".txt",), 250),
}
# Samples of secrets, which documents have, too.
SAMPLES = (
    "4111111111111111",
    "AIDA",
    "AKIA",
    "Authorization: Bearer ",
    "Eby8vdM02",
    "PGPASSWORD=dbos",
    "__null_token_value__",
    "badge.svg?token=",
    "czZCaGRSa3",
    "eyJ",
    "grant_type=",
    "generated-secret",
    "jwt_abc123",
    "my-hardcoded-api-key",
    "no-password-required",
    "postgres://postgres:postgres@",
    "postgresql+psycopg2://scott:",
    'secret_key="fake"',
    "session=abc123",
    "supersecret",
    "test-secret-key",
    'update_token = "1a2b',
)
SAID = {
    "English": (
        "The token expired before the job ended, so the service asked for a new one.",
        "Her password is written nowhere; she keeps the secret to herself.",
        "Please log in with your user name and password, then accept the cookies.",
        "An access key opens the door of the archive, a private key opens nothing else.",
        "Bearer bonds were sold at 12.5 per cent in 1987, as a token of good will.",
    ),
    "German": (
        "Das Passwort steht in keiner Datei, und das Geheimnis bleibt unter uns.",
        "Der Token ist abgelaufen: bitte melden Sie sich neu an.",
        "Am 30.11.2026 um 14:05 Uhr wurden 1.234.567,89 Euro überwiesen.",
        "Ihr Kennwort: mindestens zwölf Zeichen, davon eine Ziffer.",
        "Größe und Gewicht stehen auf Seite 4711 des Handbuchs.",
    ),
    "French": (
        "Le mot de passe : obligatoire, douze caractères au moins.",
        "Il n'y a pas de secret : la clé est sous le paillasson.",
        "Le jeton a expiré hier à 18 h 30, il faut en demander un autre.",
        "Voilà 25 000 euros, soit 12,5 % du total de l'année 1999.",
    ),
    "Spanish": (
        "La contraseña: debe tener al menos doce caracteres.",
        "El secreto de la receta está en el aceite de oliva.",
        "¿Dónde está la llave? Ayer, a las 9:45, la dejé en la mesa.",
    ),
    "Portuguese": (
        "A senha: obrigatória, com doze caracteres ou mais.",
        "O segredo da casa é o café, e o café não tem segredo.",
        "São 1.250,00 reais, pagos em 15/03/2024.",
    ),
    "Polish": (
        "Hasło: wymagane, co najmniej dwanaście znaków.",
        "Nie ma żadnego sekretu, klucz leży pod wycieraczką.",
        "W roku 1989 sprzedano 12 345 sztuk.",
    ),
    "Dutch": (
        "Het wachtwoord: verplicht, ten minste twaalf tekens.",
        "Het geheim van de kok is boter, en nog meer boter.",
        "Op 5 mei 1945 was het 18 graden.",
    ),
    "Russian": (
        "Пароль: обязателен, не короче двенадцати знаков.",
        "Ключ лежит под ковриком, и это не секрет.",
        "В 1961 году, 12 апреля, в 9:07 по московскому времени.",
    ),
    "Chinese": (
        "密码：必填，至少十二个字符。",
        "令牌已过期，请重新登录。",
        "二〇二六年十一月三十日，气温18度，湿度65%。",
    ),
    "Japanese": (
        "パスワード：必須、十二文字以上。",
        "トークンの有効期限が切れました。",
        "2026年11月30日、気温は18度です。",
    ),
}


def texts(made: random.Random) -> Iterator[tuple[str, str]]:
    """5,000 texts and what each of them is."""
    files = _installed()
    for kind, (endings, count) in WRITTEN.items():
        paths = [path for ending in endings for path in files[ending]]
        drawn = {_piece(made, made.choice(paths)) for _ in range(count)}
        yield from ((kind, text) for text in sorted(drawn) if _is_harmless(text))
    for sentences in SAID.values():
        yield from (("prose", " ".join(made.choices(sentences, k=8))) for _ in range(60))
    yield from (("log", "\n".join(_line(made) for _ in range(15))) for _ in range(250))
    yield from (("numbers", made.choice((" ", ", ", "\n")).join(_number(made) for _ in range(40))) for _ in range(250))
    yield from (("JSON of numbers", json.dumps(_record(made))) for _ in range(100))


def _installed() -> Mapping[str, Sequence[Path]]:
    """The files of the interpreter and of the packages, by the ends of their names; tests and examples hold keys."""
    found: dict[str, list[Path]] = defaultdict(list)
    for root in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")):
        for folder, within, names in os.walk(root):
            within[:] = sorted(set(within) - {"test", "tests", "site-packages", "__pycache__"})
            for name in sorted(names):
                if name != "examples-1.json":
                    found[Path(name).suffix or name].append(Path(folder, name))
    return found


def _piece(made: random.Random, path: Path, size: int = 2000) -> str:
    """Some lines of a file."""
    with path.open("rb") as file:
        file.seek(made.randrange(max(path.stat().st_size - size, 1)))
        text = file.read(size).decode(errors="ignore")
    return text if len(text) < size // 2 else text.partition("\n")[2] or text


def _is_harmless(text: str) -> bool:
    # A file in base64 is described.
    return not any(sample in text for sample in SAMPLES) and not binary.has_run(text)


def _line(made: random.Random) -> str:
    day, hour, minute, thousandth = (made.randrange(*limits) for limits in ((1, 31), (24,), (60,), (1000,)))
    at = f"2026-11-{day:02}T{hour:02}:{minute:02}:07.{thousandth:03}Z"
    number, thread = made.randrange(10**9), made.randrange(64)
    return made.choice(
        (
            f'10.0.{thread}.7 - ada [{at}] "GET /items/{number}?page=2&sort=name HTTP/1.1" 200 {number % 9999}',
            f"{at} INFO [worker-{thread}] request id={number} took {number / 1e6:.2f} ms, {thread} tokens",
            f"{at} WARN o.a.k.Consumer - Unexpected token: '}}' at line {thread}",
            f"{at} DEBUG tokens: prompt={thread} completion={number % 4096} total={thread + number % 4096}",
            f'level=error ts={at} caller=auth.go:{thread} msg="token is expired" user={number}',
            f"{at} session {uuid.UUID(int=made.getrandbits(128))} ended: password changed by its owner",
            f"commit {made.randbytes(20).hex()}\nDate: {at}\n\n    Refuse tokens that have no end (#{thread})",
            f"kernel: [{number / 1e3:.6f}] eth{thread}: link up, {number} packets, mac 02:42:ac:11:00:{thread:02x}",
        )
    )


def _number(made: random.Random) -> str:
    return made.choice(
        (
            str(made.randrange(1_600_000_000_000, 1_900_000_000_000)),
            str(made.randrange(10**9)),
            f"{made.uniform(-1e6, 1e6):.4f}",
            f"{made.random():.17f}",
            str(uuid.UUID(int=made.getrandbits(128))),
            sha256(made.randbytes(4)).hexdigest(),
            f"978-3-16-{made.randrange(10**6):06}-{made.randrange(10)}",
            f"${made.randrange(10**6):,}.99",
            f"2026-11-{made.randrange(1, 31):02}",
            f"192.168.{made.randrange(256)}.{made.randrange(256)}:{made.randrange(65536)}",
        )
    )


def _record(made: random.Random) -> dict[str, object]:
    return {
        "id": made.randrange(10**18),
        "created": made.randrange(1_600_000_000, 1_900_000_000),
        "usage": {"prompt_tokens": made.randrange(9000), "completion_tokens": made.randrange(9000)},
        "logprobs": [{"token": made.choice(("The", " key", "secret")), "logprob": -made.random()} for _ in range(5)],
        "embedding": [made.uniform(-1, 1) for _ in range(20)],
        "trace_id": made.randbytes(16).hex(),
        "next_page_token": None,
        "max_tokens": 4096,
    }
