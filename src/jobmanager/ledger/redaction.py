"""Keeps secrets out of what is recorded and shown: by key in values, by pattern and by known secret in text.

A text is read from left to right, once. After the name of a secret its whole value goes: to the closing quote or bracket, and where
nothing closes it to the end of the line or to the next name. What is bounded before is searched in a time that grows with its size.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any
from urllib.parse import quote, quote_plus

from jobmanager.ledger.bounding import HIDDEN, hide_named

__all__ = ["HIDDEN", "Redactor"]

SHORTEST = 4
"""Characters of a known secret that is searched for; a shorter one would blot out ordinary words."""
SHORTEST_ENCODED = 8
LONGEST_USER = 256

_WORDS = (
    r"(?i:passw(?:or)?d|passphrase|passcode|pwd|secret|token|api[_-]?key|access[_-]?key|authorization|credential|private[_-]?key|cookie)"
    r"|(?<![A-Za-z])(?i:pass)(?![A-Za-z])|(?<=[a-z])Pass(?![a-z])"
)
_KEY = re.compile(_WORDS)
_LINE_HEADER = re.compile(r"(?i:authorization|cookie)")
# A name is tried at its first character only, and what was matched is not given back: the time grows with the text, not with its square.
_NAME = re.compile(
    rf"""(?P<name>(?<![\w-])(?=[\w-]*?(?:{_WORDS}))[\w-]++)"""
    r"""(?P<closing>\\*+["'`]?+)(?P<sign>\s*+(?::=|=>|[:=>]|%3[ADad])\s*+|(?<=["'`])\s*+,\s*+|[ \t]++)""",
)
_QUOTE = re.compile(r"""[A-Za-z]{0,2}(\\*)(["'`])""")
_QUOTES = re.compile(r"""(\\*)(["'`])""")
_CALL = re.compile(r"[A-Za-z_][\w.]*(?=[\(\[{<])|(?=[\(\[{<])")
_BRACKETS = re.compile(r"""["'`()\[\]{}<>]|\n""")
_SCHEME = re.compile(r"(?i:bearer|basic|token|apikey|api-key)[ \t]++")
_WORD_ENDS = re.compile(
    r"""[\s<]|[,;&|](?=\s|$|\\*["']?[\w.-]++\\*["']?\s*[=:])|\\*[)\]}>"'`]++(?=[\s,;:.&|)\]}]|$)"""
)
_LINE_ENDS = re.compile(
    r"""[\r\n]|[,;&|]?\s*+\\*["'`]?(?<=[\s,;&|"'`])[\w.-]++\\*["'`]?\s*+[=:](?!//)|[,;](?=\s|$)"""
)
_LINE = re.compile(r"[\r\n]|$")
_BARE = re.compile(r"(?i:\bbearer)\s++(?=\S*\d)\S{8,}")
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*-----|\Z)")
_API_KEY = re.compile(r"jm_(?=[a-z0-9_-]*[A-Z])[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])")
_SCHEMES = re.compile(r"(?<!\w)\w[\w+.-]*+://")
_URL_END = re.compile(r"[\s]|$")
_PORT = re.compile(r"\d{1,5}(?![^\s/?#\"'`,;)\]}>])")


class Redactor:
    """Hides secrets; `secrets` are literal values (of the settings) that must never show, however they are encoded."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        spelt = {spelling for secret in secrets for spelling in _spellings(secret)}
        literal = sorted((re.escape(one) for one in spelt), key=len, reverse=True)
        self._literal = re.compile("|".join(literal)) if literal else None

    def text(self, text: str) -> str:
        """Return the text without secret values."""
        if self._literal is not None:
            text = self._literal.sub(HIDDEN, text)
        if "jm_" in text:
            text = _API_KEY.sub(HIDDEN, text)
        if "-----BEGIN" in text:
            text = _PEM.sub(HIDDEN, text)
        if "earer" in text or "EARER" in text:
            text = _BARE.sub(HIDDEN, text)
        if _KEY.search(text):
            text = _without_spans(text, _values_in(text))
        return _without_spans(text, _passwords_in(text)) if "://" in text else text

    def is_secret(self, key: str) -> bool:
        """Return whether the value of this key must not show."""
        return _KEY.search(key) is not None

    def value(self, value: Any) -> Any:
        """Return the same JSON value, with every secret key's value hidden, and every secret in a key or a text."""
        return hide_named(self._copied(value), self.is_secret)

    def _copied(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {
                self.text(key) if isinstance(key, str) else key: HIDDEN
                if self.is_secret(str(key))
                else self._copied(item)
                for key, item in value.items()
            }
        return [self._copied(item) for item in value] if isinstance(value, (list, tuple)) else value


# ---------------------------------------------------------------- known secrets


def _spellings(secret: str) -> Iterator[str]:
    """Yield the secret as it is, and as it stands in URLs, JSON, literals, HTML, hexadecimal and base64."""
    if len(secret) < SHORTEST:
        return
    raw = secret.encode("utf-8", "replace")
    once = {
        secret, quote(secret), quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1], repr(raw)[2:-1], escape(secret),
    }  # fmt: skip
    yield from once
    yield from {
        again(text)[1:-1] for text in once for again in (repr, json.dumps)
    }  # a literal within a literal
    yield from {raw.hex(), raw.hex().upper(), secret[::-1]} if len(secret) >= SHORTEST_ENCODED else ()
    for before in range(3):  # somewhere in what was encoded
        whole = base64.b64encode(b"\0" * before + raw).decode().rstrip("=")
        kept = whole[(before * 8 + 5) // 6 : (len(whole) if (before + len(raw)) % 3 == 0 else -1)]
        if len(kept) >= SHORTEST_ENCODED:
            yield from {kept, kept.replace("+", "-").replace("/", "_")}


# ---------------------------------------------------------------- spans of a text


def _without_spans(text: str, spans: Iterator[tuple[int, int]]) -> str:
    parts, done = [], 0
    for start, end in spans:
        parts += [text[done:start], HIDDEN]
        done = end
    return "".join([*parts, text[done:]]) if parts else text


def _values_in(text: str) -> Iterator[tuple[int, int]]:
    """Yield where the values of secret names are."""
    place = 0
    while (found := _NAME.search(text, place)) is not None:
        start = found.end()
        blank = found["sign"].isspace()
        if (blank and not _is_option(found)) or start >= len(text) or text.startswith(HIDDEN, start):
            place = start
            continue
        end = _end_of_value(text, start, found)
        if end > start:
            yield start, end
        place = max(end, start)


def _is_option(found: re.Match[str]) -> bool:
    """Return whether the name is an option of a command line, whose value stands after a blank."""
    return found["name"].startswith("-") and not found["closing"]


def _end_of_value(text: str, start: int, found: re.Match[str]) -> int:
    quoted = _QUOTE.match(text, start)
    if quoted is not None:
        return _end_of_quoted(text, quoted)
    called = _CALL.match(text, start)
    if called is not None and called.end() < len(text):
        return _end_of_brackets(text, called.end())
    inside = found["closing"] != ""
    scheme = _SCHEME.match(text, start)
    if scheme is not None:
        return _searched(_WORD_ENDS, text, scheme.end())
    if _LINE_HEADER.search(found["name"]) and not inside:
        return _searched(_LINE, text, start)
    if found["sign"].endswith((": ", ":\t", "= ")):
        return max(_searched(_LINE_ENDS, text, start), _searched(_WORD_ENDS, text, start))
    return _searched(_WORD_ENDS, text, start)


def _searched(pattern: re.Pattern[str], text: str, start: int) -> int:
    found = pattern.search(text, start)
    return len(text) if found is None else found.start()


def _end_of_quoted(text: str, quoted: re.Match[str]) -> int:
    """Return the end of a literal: the same quote under as many backslashes, however deep the literal is in others."""
    depth, mark = len(quoted[1]), quoted[2]
    place = quoted.end()
    if not depth and text.startswith(mark * 2, place):
        closing = text.find(mark * 3, place + 2)
        return len(text) if closing < 0 else closing + 3
    for found in _QUOTES.finditer(text, place):
        beyond = len(found[1]) - depth
        if found[2] == mark and beyond >= 0 and beyond % (2 * (depth + 1)) == 0:
            return found.end()
    return len(text)


def _end_of_brackets(text: str, start: int) -> int:
    """Return the end of what the bracket there opens, or of the text if nothing closes it."""
    depth, place = 0, start
    while (found := _BRACKETS.search(text, place)) is not None:
        mark, place = found[0], found.end()
        if mark in "\"'`":
            opened = _QUOTE.match(text, found.start())
            place = place if opened is None else _end_of_quoted(text, opened)
        elif mark in "([{<":
            depth += 1
        elif mark in ")]}>":
            depth -= 1
            if depth <= 0:
                return place
    return len(text)


def _passwords_in(text: str) -> Iterator[tuple[int, int]]:
    """Yield where the passwords of URLs are: to the last @ of what has no blank, else of the line."""
    place = word_end = line_end = 0
    last_of_word = last_of_line = -1
    while (found := _SCHEMES.search(text, place)) is not None:
        place = found.end()
        if place >= word_end:  # looked up once for each word and each line, not for each of their URLs
            word_end = _searched(_URL_END, text, place)
            last_of_word = text.rfind("@", place, word_end)
        if place >= line_end:
            line_end = text.find("\n", place)
            line_end = len(text) if line_end < 0 else line_end
            last_of_line = text.rfind("@", place, line_end)
        colon = text.find(":", place, place + LONGEST_USER)
        if not place <= colon < word_end or any(mark in text[place:colon] for mark in "/?#@"):
            continue
        last = last_of_word
        if last <= colon and _PORT.match(text, colon + 1) is None:
            last = last_of_line
        if last > colon + 1:
            yield colon + 1, last
            place = last
