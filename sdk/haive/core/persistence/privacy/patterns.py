"""The detector that is always there: patterns, and the check digits of what they find."""

from __future__ import annotations

import re

from haive.core.persistence.privacy import _contacts, _money, _national, _secrets
from haive.core.persistence.privacy.detector import Finding

_RECOGNISERS = (
    *_contacts.RECOGNISERS,
    *_money.RECOGNISERS,
    *_national.RECOGNISERS,
    *_secrets.RECOGNISERS,
)
_WITHOUT_DIGITS = frozenset({"EMAIL", "IP_ADDRESS", "IT_FISCAL_CODE", "SECRET"})
_DIGIT = re.compile("[0-9]")


def _ascii() -> dict[int, str]:
    """Characters that are written for ASCII ones, one for one, so that places stay the same."""
    table = {0xFF01 + place: chr(0x21 + place) for place in range(94)}  # full width
    for zero in (0x0660, 0x06F0, 0x0966, 0x09E6, 0x0E50):  # digits of other scripts
        table |= {zero + digit: str(digit) for digit in range(10)}
    table |= dict.fromkeys((0xA0, *range(0x2000, 0x200B), 0x202F, 0x3000), " ")
    table |= dict.fromkeys((*range(0x2010, 0x2016), 0x2212, 0xFE63), "-")
    return table


_ASCII = _ascii()


class PatternDetector:
    """Finds what has a shape: addresses, numbers with check digits, keys.

    ====================  =========================================================================
    ``EMAIL``             an address with a domain; in full width letters too
    ``PHONE``             ``+`` or ``00`` and a country; North American and, with the leading 0,
                          European shapes with their separators; any digits behind "phone:", "tel"…
    ``IP_ADDRESS``        IPv4 and IPv6, but for loopback, multicast and reserved ones
    ``CREDIT_CARD``       the issuer's beginning and length, and Luhn's check digit
    ``IBAN``              the country's length and modulo 97
    ``US_SSN``            ``123-45-6789`` in the areas that are given; without hyphens after "SSN"
    ``UK_NHS``            ``943 476 5919``, or behind "NHS", modulo 11
    ``DE_TAX_ID``         Steuer-ID, ISO 7064 MOD 11,10
    ``ES_NIF``            DNI and NIE, modulo 23
    ``FR_NIR``            social security number, modulo 97
    ``IT_FISCAL_CODE``    codice fiscale, its check letter
    ``BR_CPF``            ``123.456.789-09``, two digits modulo 11
    ``SECRET``            private keys, JWTs, keys of known services, bearer tokens, passwords in
                          addresses
    ====================  =========================================================================

    Names, streets and dates of birth have no shape: it finds none of them. It takes about
    0.2 ms for a kilobyte of prose, and time in proportion for any text.
    """

    @property
    def entities(self) -> frozenset[str]:
        """All that it can find."""
        return frozenset(recogniser.entity for recogniser in _RECOGNISERS)

    def find(self, text: str) -> list[Finding]:
        """What is in a text; findings may overlap."""
        plain = text if text.isascii() else text.translate(_ASCII)
        digits = _DIGIT.search(plain) is not None
        return [
            Finding(recogniser.entity, start, end, recogniser.score)
            for recogniser in _RECOGNISERS
            if digits or recogniser.entity in _WITHOUT_DIGITS
            for start, end in recogniser.find(plain)
        ]
