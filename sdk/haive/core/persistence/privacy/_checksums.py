"""Check digits: what tells a number that somebody was given from one that looks like it.

Each takes the number without separators, its letters in capitals.
"""

from __future__ import annotations

from collections import Counter
from string import ascii_uppercase, digits

_DNI_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
# What a character counts at the 1st, 3rd, 5th … place of a codice fiscale.
_ODD = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21)
_ODD_LETTERS = (*_ODD, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)
_FISCAL_ODD = dict(zip(digits + ascii_uppercase, _ODD + _ODD_LETTERS, strict=True))
_FISCAL_EVEN = dict(zip(digits + ascii_uppercase, (*range(10), *range(26)), strict=True))
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def luhn(number: str) -> bool:
    """Payment cards (ISO/IEC 7812-1)."""
    values = [int(digit) for digit in reversed(number)]
    return (sum(values[::2]) + sum(_DOUBLED[value] for value in values[1::2])) % 10 == 0


def mod_97(number: str) -> bool:
    """IBAN (ISO 13616, the check of ISO/IEC 7064 MOD 97-10)."""
    turned = number[4:] + number[:4]
    return int("".join(str(int(character, 36)) for character in turned)) % 97 == 1


def nhs(number: str) -> bool:
    """The NHS number of England, Wales and the Isle of Man: modulo 11, ten digits."""
    weights = range(10, 1, -1)
    total = sum(int(d) * weight for d, weight in zip(number[:9], weights, strict=True))
    return (11 - total % 11) % 11 == int(number[9])


def german_tax_id(number: str) -> bool:
    """The German Steuer-ID: ISO/IEC 7064 MOD 11,10 over ten digits of which one comes again."""
    again = sorted(Counter(number[:10]).values(), reverse=True)
    if again[0] not in {2, 3} or again[1] != 1:
        return False
    product = 10
    for digit in number[:10]:
        product = ((int(digit) + product) % 10 or 10) * 2 % 11
    return (11 - product) % 10 == int(number[10])


def spanish_nif(number: str) -> bool:
    """The Spanish DNI and NIE: the letter is the number modulo 23."""
    plain = number[:8].replace("X", "0").replace("Y", "1").replace("Z", "2")
    return _DNI_LETTERS[int(plain) % 23] == number[8]


def french_nir(number: str) -> bool:
    """The French NIR: the key is 97 less the rest by 97; Corsica's letters stand for numbers."""
    plain = number[:13].replace("2A", "19").replace("2B", "18")
    return plain.isdigit() and 97 - int(plain) % 97 == int(number[13:])


def italian_fiscal_code(number: str) -> bool:
    """The Italian codice fiscale: the last letter is a weighted sum modulo 26."""
    total = sum(_FISCAL_ODD[character] for character in number[:15:2])
    total += sum(_FISCAL_EVEN[character] for character in number[1:15:2])
    return chr(ord("A") + total % 26) == number[15]


def brazilian_cpf(number: str) -> bool:
    """The Brazilian CPF: two digits, each modulo 11; all digits the same is none."""
    if len(set(number)) == 1:
        return False
    for length in (9, 10):
        weights = range(length + 1, 1, -1)
        total = sum(int(d) * weight for d, weight in zip(number[:length], weights, strict=True))
        if total * 10 % 11 % 10 != int(number[length]):
            return False
    return True
