"""Where somebody's money is: payment cards and bank accounts."""

from __future__ import annotations

import re

from haive.core.persistence.privacy._checksums import luhn, mod_97
from haive.core.persistence.privacy._recogniser import Recogniser, Span

# In one piece, 4-4-4-4 with what longer cards (or the number on the back) add, or 4-6-5.
_CARD = re.compile(
    r"[0-9](?<![0-9A-Za-z][0-9])(?<![0-9]\.[0-9])(?:"
    r"[0-9]{12,18}"
    r"|[0-9]{3}(?P<four>[ -])[0-9]{4}(?P=four)[0-9]{4}(?P=four)[0-9]{1,4}(?:(?P=four)[0-9]{1,3})?"
    r"|[0-9]{3}(?P<six>[ -])[0-9]{6}(?P=six)[0-9]{4,5}"
    r")(?![0-9A-Za-z]|\.[0-9])"
)
# The beginning of a card's number says who issued it, and so how long it is (ISO/IEC 7812).
_ISSUERS = (
    (re.compile(r"4"), {13, 16, 19}),  # Visa
    (re.compile(r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), {16}),  # Mastercard
    (re.compile(r"3[47]"), {15}),  # American Express
    (re.compile(r"6011|64[4-9]|65"), {16, 17, 18, 19}),  # Discover
    (re.compile(r"352[89]|35[3-8]"), {16, 17, 18, 19}),  # JCB
    (re.compile(r"30[0-5]|36|3[89]"), {14, 16, 17, 18, 19}),  # Diners Club
    (re.compile(r"62|81"), {16, 17, 18, 19}),  # UnionPay
    (re.compile(r"5018|5020|5038|5893|6304|6759|676[1-3]"), set(range(13, 20))),  # Maestro
    (re.compile(r"220[0-4]"), {16, 17, 18, 19}),  # Mir
    (re.compile(r"60|508[5-9]"), {16}),  # RuPay
)


def _card(match: re.Match[str]) -> Span | None:
    text = match[0]
    while True:
        if _is_card("".join(filter(str.isdigit, text))):
            return match.start(), match.start() + len(text)
        if match["four"] is None or text.count(match["four"]) < 4:
            return None
        text = text.rpartition(match["four"])[0]  # 4111 1111 1111 1111 123


def _is_card(number: str) -> bool:
    issued = any(start.match(number) and len(number) in lengths for start, lengths in _ISSUERS)
    return issued and luhn(number)


# The length of an account's number is its country's: the IBAN registry.
_LENGTHS = {
    code: int(length)
    for length, codes in {
        "15": "NO", "16": "BE", "18": "DK FI FK FO GL NL SD", "19": "MK SI",
        "20": "AT BA EE KZ LT LU MN XK", "21": "CH HR LI LV", "22": "BG BH CR DE GB GE IE ME RS VA",
        "23": "AE GI IL IQ OM SO TL", "24": "AD CZ ES MD PK RO SA SE SK TN VG",
        "25": "LY PT ST", "26": "IS TR", "27": "BI DJ FR GR IT MC MR SM",
        "28": "AL AZ BY CY DO GT HN HU LB NI PL SV", "29": "BR EG PS QA UA", "30": "JO KW MU YE",
        "31": "MT SC", "32": "LC", "33": "RU",
    }.items()
    for code in codes.split()
}  # fmt: skip
_IBAN = re.compile(r"[A-Za-z](?<![0-9A-Za-z][A-Za-z])[A-Za-z][0-9](?:[ -]?[0-9A-Za-z]){12,31}")


def _iban(match: re.Match[str]) -> Span | None:
    """As many letters and digits as the country has; words may stand behind them."""
    text = match[0].upper()
    length = _LENGTHS.get(text[:2])
    if length is None:
        return None
    places = [place for place, character in enumerate(text) if character.isalnum()]
    if len(places) < length:
        return None
    end = places[length - 1] + 1
    number = "".join(filter(str.isalnum, text[:end]))
    if text[end : end + 1].isalnum() or not number[2:4].isdigit() or not mod_97(number):
        return None
    return match.start(), match.start() + end


RECOGNISERS = (
    Recogniser("CREDIT_CARD", _CARD, _card),
    Recogniser("IBAN", _IBAN, _iban),
)
