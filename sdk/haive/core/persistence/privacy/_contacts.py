"""Where somebody is reached: e-mail, telephone, IP addresses."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

from haive.core.persistence._marks import MARKS
from haive.core.persistence.privacy._recogniser import Recogniser, Span

# What the part before the @ has in it.
_LOCAL = re.compile(rf"[\w{MARKS}.%+'-]")
_LONGEST_LOCAL = 64
# logo@2x.png and the like.
_FILES = frozenset({"png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "ts", "json"})
# The end is read once: MARKS has letters too, and each would be tried as a letter and as a mark.
_EMAIL = re.compile(
    rf"@(?:[\w{MARKS}-]{{1,63}}\.){{1,8}}"
    rf"(?P<top>xn--[a-z0-9-]{{2,59}}|(?:[^\W\d_]|[{MARKS}]){{2,24}}+)(?![^\W_]|[{MARKS}])"
)


def _email(match: re.Match[str]) -> Span | None:
    """Read the part before the @ backwards: searching for it forwards would try every word."""
    text, at = match.string, match.start()
    start = at
    while start > 0 and at - start < _LONGEST_LOCAL and _LOCAL.match(text, start - 1):
        start -= 1
    while start < at and not (text[start].isalnum() or text[start] == "_"):
        start += 1
    # git@github.com is where code is, and nobody's mail.
    if start == at or text[start:at] == "git" or match["top"].lower() in _FILES:
        return None
    return start, match.end()


_GROUPS = r"(?:[ .\-/()]{0,3}[0-9])"
_INTERNATIONAL = re.compile(rf"(?P<value>\+(?<![0-9A-Za-z+]\+)\(?[1-9]{_GROUPS}{{6,24}}+)")
_PREFIXED = re.compile(
    rf"(?P<value>0(?<![0-9A-Za-z+.,-]0)0[1-9][0-9]{{0,2}}[ ./-]\(?[0-9]{_GROUPS}{{5,24}}+)"
)
_AMERICAN = re.compile(
    r"[2-9(](?<![0-9A-Za-z][2-9(])(?:"
    r"(?<=\()[2-9][0-9]{2}\) ?[0-9]{3}[ .-]|[0-9]{2}[.-][0-9]{3}[.-]"
    r")[0-9]{4}(?![0-9A-Za-z]|[.-][0-9])"
)
# With the 0 that is dialled within a country: 020 7946 0958, (0171) 1234567, 06 12 34 56 78.
_NATIONAL = re.compile(
    r"[0(](?<![0-9A-Za-z.,+/-][0(])(?:(?<=\()0|(?<=0))(?:"
    r"[1-9][0-9]{1,4}\)?[ /-][0-9]{3,8}(?:[ -]?[0-9]{2,4}){0,3}"
    r"|[1-9](?:[ .-][0-9]{2}){4}"
    r")(?![0-9A-Za-z]|[.,/-][0-9])"
)
_LABELLED = re.compile(
    r"\b(?:phone|telephone|telefon|tel[eé]fono|tel|mobile|mobil|cell|handy|fax|whatsapp)\b"
    r"(?:\s{0,2}(?:number|no\b\.?|nr\b\.?|is\b|at\b|[:=#.-])){0,3}\s{0,2}"
    rf"(?P<value>[(+]?[0-9]{_GROUPS}{{6,24}}+)",
    re.IGNORECASE,
)
_DATE = re.compile(r"[0-9]{4}[-/.][0-9]{2}[-/.][0-9]{2}")


def _international(match: re.Match[str]) -> Span | None:
    start, end = match.span("value")
    plan = match["value"].lstrip("+(")[0]  # 1 is all of North America: eleven digits
    return _as_long_as(match.string, start, end, *((11, 11) if plan == "1" else (8, 15)))


def _prefixed(match: re.Match[str]) -> Span | None:
    return _as_long_as(match.string, *match.span("value"), 10, 17)


def _labelled(match: re.Match[str]) -> Span | None:
    start, end = match.span("value")
    return None if _DATE.match(match["value"]) else _as_long_as(match.string, start, end, 7, 15)


def _as_long_as(text: str, start: int, end: int, least: int, most: int) -> Span | None:
    """The groups of digits that a number can have: other numbers may stand behind it."""
    digits = 0
    longest = None
    for place in range(start, end):
        if text[place].isdigit():
            digits += 1
            if digits > most:
                break
            if digits >= least and not text[place + 1 : place + 2].isdigit():
                longest = start, place + 1
    return longest


def _american(match: re.Match[str]) -> Span | None:
    start = match.start()
    before = match.string[max(0, start - 3) : start]
    if before[-2:] in {"1-", "1.", "1 "} and not before[:-2].isdigit():
        return start - 2, match.end()
    if len(before) > 1 and before[-2].isdigit() and before[-1] in ".,/-":
        return None
    return match.span()


def _national(match: re.Match[str]) -> Span | None:
    if not 9 <= sum(map(str.isdigit, match[0])) <= 12:
        return None
    alone = match[0].startswith("(") and ")" not in match[0]  # (020 7946 0958)
    return match.start() + alone, match.end()


_V4 = re.compile(r"[0-9](?<![0-9A-Za-z.][0-9])[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?![0-9A-Za-z]|\.[0-9])")
_V6 = re.compile(
    r"[0-9A-Fa-f:](?<![0-9A-Za-z:._][0-9A-Fa-f:])(?=[0-9A-Fa-f]{0,3}:)"
    r"[0-9A-Fa-f:]{1,38}+(?:\.[0-9]{1,3}){0,3}(?![0-9A-Za-z:])"
)
_VERSION = re.compile(r"(?:version|release|build|ver\.?|v\.)[ :]?$", re.IGNORECASE)


def _v4(match: re.Match[str]) -> Span | None:
    try:
        address = IPv4Address(match[0])
    except ValueError:
        return None
    before = match.string[max(0, match.start() - 9) : match.start()]
    if _is_nobodys(address) or str(address) == "255.255.255.255" or _VERSION.search(before):
        return None
    return match.span()


def _v6(match: re.Match[str]) -> Span | None:
    text = match[0]
    if text.endswith(":") and not text.endswith("::"):  # "from 2001:db8::1: refused"
        text = text[:-1]
    try:
        address = IPv6Address(text)
    except ValueError:
        return None
    host = address.ipv4_mapped or address
    # What is reserved has no host: a[::2] and 1::2 are slices.
    if _is_nobodys(host) or (host is address and address.is_reserved):
        return None
    return match.start(), match.start() + len(text)


def _is_nobodys(address: IPv4Address | IPv6Address) -> bool:
    return address.is_loopback or address.is_unspecified or address.is_multicast


RECOGNISERS = (
    Recogniser("EMAIL", _EMAIL, _email, needs="@"),
    Recogniser("PHONE", _INTERNATIONAL, _international, needs="+", score=0.9),
    Recogniser("PHONE", _PREFIXED, _prefixed, needs="00", score=0.8),
    Recogniser("PHONE", _AMERICAN, _american, score=0.7),
    Recogniser("PHONE", _NATIONAL, _national, needs="0", score=0.6),
    Recogniser("PHONE", _LABELLED, _labelled, score=0.9),
    Recogniser("IP_ADDRESS", _V4, _v4, needs="."),
    Recogniser("IP_ADDRESS", _V6, _v6, needs=":"),
)
