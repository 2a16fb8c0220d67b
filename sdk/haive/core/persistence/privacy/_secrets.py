"""What opens a door: keys, tokens and passwords that people paste into a conversation."""

from __future__ import annotations

import base64
import binascii
import json
import re

from haive.core.persistence.privacy._recogniser import Recogniser, Span, value, whole

# To its end; where that is missing, as many lines as look like a key.
_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,4}PRIVATE KEY(?: BLOCK)?-----(?:"
    r"(?:[^-]|-(?!----))*+-----END [A-Z0-9 ]{1,60}-----"
    r"|(?:(?:\s|\\[nr]){1,4}[A-Za-z0-9+/=]{16,}+)*+)"
)
# Three parts of base64url (RFC 7515), five where it is encrypted (RFC 7516).
_JWT = re.compile(
    r"eyJ(?<![A-Za-z0-9_-]eyJ)[A-Za-z0-9_-]{5,}+\.[A-Za-z0-9_-]*+\.[A-Za-z0-9_-]*+"
    r"(?:\.[A-Za-z0-9_-]++\.[A-Za-z0-9_-]++)?"
)
_LEFT = r"(?<![A-Za-z0-9_-])"
# Keys that say whose they are by how they begin.
_KEYS = re.compile(
    _LEFT + r"(?:"
    r"(?:AKIA|ASIA)[A-Z2-7]{16}(?![A-Za-z0-9])"  # AWS
    r"|gh[opsru]_[A-Za-z0-9]{36,255}+|github_pat_[A-Za-z0-9_]{22,255}+"
    r"|glpat-[A-Za-z0-9_-]{20,255}+"
    r"|(?:xox[abeoprs]|xapp)-[A-Za-z0-9-]{10,255}+"  # Slack
    r"|[rs]k_(?:live|test)_[A-Za-z0-9]{16,255}+"  # Stripe
    r"|sk-[A-Za-z0-9_-]{20,255}+"  # OpenAI, Anthropic and those that do as they do
    r"|AIza[A-Za-z0-9_-]{35}|GOCSPX-[A-Za-z0-9_-]{20,255}+"  # Google
    r"|hf_[A-Za-z0-9]{30,255}+"
    r"|(?:npm_|sbp_|dckr_pat_)[A-Za-z0-9_-]{27,255}+|pypi-[A-Za-z0-9_-]{50,1000}+"
    r"|sb_secret_[A-Za-z0-9_-]{20,255}+"  # Supabase
    r"|SG\.[A-Za-z0-9_-]{16,100}\.[A-Za-z0-9_-]{16,100}+"  # SendGrid
    r")"
)
# AWS gives a secret key no beginning of its own: what stands before it names it.
_AWS_SECRET = re.compile(
    r"[Ss](?i:ecret[ _-]?(?:access[ _-]?)?key)(?:[\s\"'`\\=:>(,]|is\b|\[None\]){1,12}+"
    r"(?P<value>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])"
)
_BEARER = re.compile(
    r"[Bb](?<![0-9A-Za-z_][Bb])(?i:earer)\s{1,4}(?P<value>[A-Za-z0-9._~+/-]{20,4096}+=*+)"
)
# scheme://user:password@host. A password may have / and @ in it, and before those quotes and
# commas, but not where they end a value or a text: an @ behind is of another. In
# https://host:8080/@ada and http://host:${PORT}/@ada is none, nor in
# oci://repository:tag@sha256:digest.
_ENDS = r"[\"'<>`,](?=[\"'<>`,:;{}()\[\]\\\s])"
_IN_URL = re.compile(
    rf"://(?P<value>(?:(?!{_ENDS})[^\s:@/\[\]]){{0,100}}:(?![0-9]{{1,5}}/)(?:"
    r"(?![0-9]{1,5}[?#\\|;:)}\"'<>`,]|\$?\{|\$[A-Z_]{1,50}/)"
    rf"(?!{_ENDS})[^\s\[\]](?:(?!{_ENDS})[^\s@/\[\]]){{0,199}}(?:[@/][^\s@/\[\]\"'<>`,]{{0,200}}){{0,8}}"
    rf"|(?:(?!{_ENDS})[^\s@/\[\]]){{1,200}}))@(?!sha(?:256|512):)"
)


def _jwt(match: re.Match[str]) -> Span | None:
    """Its header is JSON that names an algorithm."""
    header = match[0].partition(".")[0]
    try:
        named = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    return match.span() if isinstance(named, dict) and "alg" in named else None


def _key(match: re.Match[str]) -> Span | None:
    """Words with hyphens between them are no key: sk-learn-and-what-comes-with-it."""
    return match.span() if any(map(str.isdigit, match[0])) else None


def _token(match: re.Match[str]) -> Span | None:
    return value(match) if any(map(str.isdigit, match["value"])) else None


RECOGNISERS = (
    Recogniser("SECRET", _PRIVATE_KEY, whole, needs="-----BEGIN "),
    Recogniser("SECRET", _JWT, _jwt, needs="eyJ"),
    Recogniser("SECRET", _KEYS, _key),
    Recogniser("SECRET", _AWS_SECRET, _token, score=0.9),
    Recogniser("SECRET", _BEARER, _token, score=0.9),
    Recogniser("SECRET", _IN_URL, value, needs="://", score=0.9),
)
