"""Numbers that a state gives a person, with their check digits or the ranges they are from."""

from __future__ import annotations

import re

from haive.core.persistence.privacy import _checksums
from haive.core.persistence.privacy._recogniser import Recogniser, checked

_SSN = re.compile(
    r"[0-9](?<![0-9A-Za-z][0-9])(?<![0-9][.,/-][0-9])[0-9]{2}-[0-9]{2}-[0-9]{4}"
    r"(?![0-9A-Za-z]|[.,/-][0-9])"
)
_SSN_LABELLED = re.compile(
    r"\b(?:ssn|social security(?: number| no\.?)?)(?:\s{0,2}(?:is\b|[:=#])){0,2}\s{0,2}"
    r"(?P<value>[0-9]{3}[ -]?[0-9]{2}[ -]?[0-9]{4})(?![0-9])",
    re.IGNORECASE,
)
_NHS = re.compile(
    r"[0-9](?<![0-9A-Za-z][0-9])(?<![0-9][ .,/-][0-9])[0-9]{2} [0-9]{3} [0-9]{4}"
    r"(?![0-9A-Za-z]|[ .,/-][0-9])"
)
_NHS_LABELLED = re.compile(
    r"\bnhs\b(?:\s{0,2}(?:number\b|no\b\.?|is\b|[:=#])){0,3}\s{0,2}"
    r"(?P<value>[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{4})(?![0-9])",
    re.IGNORECASE,
)
_GERMAN = re.compile(
    r"[1-9](?<![0-9A-Za-z][1-9])(?<![0-9][.,][1-9])(?:[0-9]{10}|[0-9](?: [0-9]{3}){3})"
    r"(?![0-9A-Za-z]|[.,][0-9])"
)
_SPANISH = re.compile(
    r"[0-9XYZxyz](?<![0-9A-Za-z][0-9XYZxyz])(?:(?<=[0-9])|-?)[0-9]{7}-?[A-Za-z](?![0-9A-Za-z])"
)
_FRENCH = re.compile(
    r"[12](?<![0-9A-Za-z][12]) ?[0-9]{2} ?(?:0[1-9]|1[0-2]|[2-9][0-9]) ?[0-9][0-9ABab] ?"
    r"[0-9]{3} ?[0-9]{3} ?[0-9]{2}(?![0-9A-Za-z])"
)
_ITALIAN = re.compile(
    r"[A-Z](?<![0-9A-Za-z][A-Z])[A-Z]{5}[0-9LMNP-V]{2}[ABCDEHLMPRST][0-9LMNP-V]{2}"
    r"[A-Z][0-9LMNP-V]{3}[A-Z](?![0-9A-Za-z])",
    re.IGNORECASE,
)
_BRAZILIAN = re.compile(
    r"[0-9](?<![0-9A-Za-z.][0-9])[0-9]{2}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}(?![0-9A-Za-z]|[.-][0-9])"
)


def _social_security(number: str) -> bool:
    """Areas 000, 666 and 900 to 999, groups 00 and serials 0000 are never given."""
    area, group, serial = number[:3], number[3:5], number[5:]
    return area not in {"000", "666"} and area < "900" and group != "00" and serial != "0000"


RECOGNISERS = (
    Recogniser("US_SSN", _SSN, checked(_social_security), needs="-", score=0.9),
    Recogniser("US_SSN", _SSN_LABELLED, checked(_social_security, "value")),
    Recogniser("UK_NHS", _NHS, checked(_checksums.nhs), needs=" ", score=0.9),
    Recogniser("UK_NHS", _NHS_LABELLED, checked(_checksums.nhs, "value")),
    Recogniser("DE_TAX_ID", _GERMAN, checked(_checksums.german_tax_id), score=0.9),
    Recogniser("ES_NIF", _SPANISH, checked(_checksums.spanish_nif), score=0.9),
    Recogniser("FR_NIR", _FRENCH, checked(_checksums.french_nir)),
    Recogniser("IT_FISCAL_CODE", _ITALIAN, checked(_checksums.italian_fiscal_code)),
    Recogniser("BR_CPF", _BRAZILIAN, checked(_checksums.brazilian_cpf), needs="."),
)
