"""What the patterns find, what they leave alone, and how long they take."""

from __future__ import annotations

import base64
import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haive.core.persistence.privacy import Detector, Finding, PatternDetector


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


JWT = f"{_part({'alg': 'HS256', 'typ': 'JWT'})}.{_part({'sub': 'ada'})}.c2lnbmF0dXJlLW9mLWl0"
AWS = "wJalrXUtnFEMI/K7MDENG/" + "bPxRfiCYEXAMPLEKEY"
PRIVATE_KEY = "\n".join(
    (
        "-----BEGIN RSA PRIVATE KEY-----",
        *["MIIEpAIBAAKCAQEA" * 4] * 3,
        "-----END RSA PRIVATE KEY-----",
    )
)

# Right check digits, as their issuers publish them for examples.
#: Entity and value; each is found whole, and as nothing else.
FOUND = [
    ("EMAIL", "ada@example.org"),
    ("EMAIL", "Ada.Lovelace+notes@mail.example.co.uk"),
    ("EMAIL", "o'brien@example.ie"),
    ("EMAIL", "françois@exämple.fr"),
    ("EMAIL", "ada@xn--exmple-cua.org"),
    ("EMAIL", "ada\uff20example\uff0eorg"),
    ("EMAIL", "maria.lopez@tigo.com.py"),
    ("EMAIL", "juan@empresa.py"),
    ("EMAIL", "ada@пример.рф"),
    ("EMAIL", "ada@例子.中国"),
    ("EMAIL", "उमा@उदाहरण.भारत"),
    ("EMAIL", "ada@எடுத்துக்காட்டு.இந்தியா"),
    ("EMAIL", "franc\u0327ois@exa\u0308mple.fr"),
    ("PHONE", "+49 30 901820"),
    ("PHONE", "+14155550100"),
    ("PHONE", "+44 (0)20 7946 0958"),
    ("PHONE", "0049 30 901820"),
    ("PHONE", "(212) 555-0123"),
    ("PHONE", "(212) 555 0123"),
    ("PHONE", "212-555-0123"),
    ("PHONE", "1-800-555-0100"),
    ("PHONE", "020 7946 0958"),
    ("PHONE", "0171 1234567"),
    ("PHONE", "06 12 34 56 78"),
    ("IP_ADDRESS", "192.0.2.44"),
    ("IP_ADDRESS", "2001:db8::8a2e:370:7334"),
    ("CREDIT_CARD", "4111111111111111"),
    ("CREDIT_CARD", "4111 1111 1111 1111"),
    ("CREDIT_CARD", "5555-5555-5555-4444"),
    ("CREDIT_CARD", "3782 822463 10005"),
    ("CREDIT_CARD", "6011111111111117"),
    ("CREDIT_CARD", "30569309025904"),
    ("CREDIT_CARD", "4222222222222"),
    ("CREDIT_CARD", "2223003122003222"),
    ("IBAN", "GB82WEST12345698765432"),
    ("IBAN", "GB82 WEST 1234 5698 7654 32"),
    ("IBAN", "DE89370400440532013000"),
    ("IBAN", "NO93 8601 1117 947"),
    ("IBAN", "MT84MALT011000012345MTLCAST001S"),
    ("US_SSN", "078-05-1120"),
    ("UK_NHS", "943 476 5919"),
    ("DE_TAX_ID", "86095742719"),
    ("DE_TAX_ID", "36 574 261 809"),
    ("ES_NIF", "54362315K"),
    ("ES_NIF", "X-2482300W"),
    ("FR_NIR", "2 95 10 99 126 111 93"),
    ("FR_NIR", "253072B07300470"),
    ("IT_FISCAL_CODE", "RCCMNL83S18D969H"),
    ("BR_CPF", "390.533.447-05"),
    ("SECRET", JWT),
    ("SECRET", PRIVATE_KEY),
    ("SECRET", "AKIA" + "IOSFODNN7EXAMPLE"),
    ("SECRET", "ghp_" + "a1B2c3D4e5F6" * 3),
    ("SECRET", "sk-proj-" + "a1B2c3D4e5F6" * 4),
    ("SECRET", "sk_live_" + "a1B2c3D4e5F6" * 2),
    ("SECRET", "sb_secret_" + "a1B2c3D4e5F6" * 2),
    ("SECRET", "xoxb-" + "123456789012-abcdefABCDEF"),
    ("SECRET", "xapp-" + "1-A0123456789-123456789012-abcdef"),
    ("SECRET", "GOCSPX-" + "a1B2c3D4e5F6" * 2 + "a1B2"),
]

#: One digit or letter beside a right one, by entity: none of them is found.
WRONG = {
    "CREDIT_CARD": [
        "4111111111111112",
        "4111 1111 1111 1121",
        "3782 822463 10006",
        "1234567812345670",
    ],
    "IBAN": ["GB82WEST12345698765433", "DE88370400440532013000", "DE8937040044053201300"],
    "US_SSN": ["000-12-3456", "666-12-3456", "900-12-3456", "123-00-4567", "123-45-0000"],
    "UK_NHS": ["943 476 5918", "943 476 5929"],
    "DE_TAX_ID": ["86095742718", "36 574 261 890", "11111111111", "12345678901"],
    "ES_NIF": ["54362315J", "54362316K", "X-2482301W"],
    "FR_NIR": ["2 95 10 99 126 111 94", "253072C07300470", "295139912611193"],
    "IT_FISCAL_CODE": ["RCCMNL83S18D969G", "RCCMNL83S18D968H"],
    "BR_CPF": ["390.533.447-06", "390.533.448-05", "111.111.111-11"],
    "IP_ADDRESS": [
        "256.1.1.1",
        "1.2.3",
        "127.0.0.1",
        "0.0.0.0",
        "::1",
        "12:30:45",
        "00:1a:2b:3c:4d:5e",
    ],
    "SECRET": [
        "eyJhbGciOiJIUzI1NiIsInR5cCI6",
        "eyJub3QiOiJqd3QifQ.e30.c2ln",
        "sk-learn-with-many-words-in-it",
        "http://localhost:8080/@vite/client",
        "https://example.org:443/users/ada@1",
        "https://example.org/a:b/@ada",
        "postgres://app:@db/x",
        "oci://registry:v1.2@sha256:deadbeef",
        "docker://repo:latest/x@sha256:0123abcd",
        '{"url":"http://db:5432","path":"/x","to":"ada@db"}',
        '{"url":"http://db:5432","to":"ada@db"}',
        '{"url":"http://db","to":"ada@db"}',
        '{"base":"http://localhost:8080","repo":"org/pkg@1.2"}',
        "[a](http://h:8080);see/x@y",
        "http://localhost:${PORT}/@vite/client",
        "http://localhost:$PORT/@vite/client",
        "http://localhost:5173#/@me",
        "postgres://postgres:[YOUR-PASSWORD]@db.example.org/x",
        "the secret key is the one that 0123456789abcdef0123456789abcdef01234567 names",
    ],
}

PROSE = """
On 2024-05-01 at 12:30:45 we released version 2.14.3, and on 01/02/2025 build 10.0.19041.1 of it.
Order 1234567890 and invoice 2024-000123 were paid with 1,234,567.89 EUR (12 345 678 units).
The paper is arXiv:2310.01234, DOI 10.1000/182, ISBN 978-3-16-148410-0, pages 123-145.
Its UUID is 018f2c1e-7b3a-7c41-9a53-0123456789ab and its hash 9e107d9d372bb6826bd81d3542a419d6.
The unix time 1714560000 is 1714560000000 in milliseconds; a snowflake is 175928847299117063.
Use @dataclass, a[1::2], std::vector<int>, x[::2] and `git clone git@github.com:haive/kit.git`.
npm install lodash@4.17.21 @types/node@18.11.9; the image is logo@2x.png; listen on 0.0.0.0:8080.
We measured 3.14159265358979 and 0.4111111111111111, 100-200-300, 50 000 000 rows and 4-4-2.
Flight LH 1234 leaves at 06:15 from gate B22, seat 14C; the room is 0815, the price 12.50.
In 2008, 2009 and 2010 there were 120 300 450 600 visitors; see section 1.2.3 of RFC 9562.
Call the function with 3 arguments; phone calls took 2024-01-01 to 2024-02-01; tel aviv is far.
Bearer of good news, the password is what you make of it. https://example.org/a/b?c=1#d
Chapter 12 verse 3; scores 21-19 21-18; ratio 16:9; temperature -12.5; coordinates 48.8566, 2.3522.
SKU AB12-CD34-EF56, plate B-AB 1234, part XY12 3456, colour #a1b2c3, MAC 00:1a:2b:3c:4d:5e.
日本語の文章に数字 12345 と日付 2024年5月1日 があります。 Ελληνικά και 100 ευρώ. 🐈 4 cats.
"""

detector = PatternDetector()
# What people put around a value.
AROUND = ["{}", "it is {}, you know", "({})", "x={}.", "🐈‍⬛ {} ünï", "«{}»\n", "[{}]", '"{}"']


def entities(text: str) -> set[str]:
    return {finding.entity for finding in detector.find(text)}


def test_it_is_a_detector_and_names_what_it_finds() -> None:
    assert isinstance(detector, Detector)
    assert {entity for entity, _ in FOUND} == detector.entities


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize(("entity", "value"), FOUND)
def test_a_value_is_found_where_it_stands(entity: str, value: str, around: str) -> None:
    text = around.format(value)
    start = around.index("{")
    found = {(f.entity, f.start, f.end) for f in detector.find(text)}
    assert found == {(entity, start, start + len(value))}


@pytest.mark.parametrize(
    ("entity", "value"), [(entity, value) for entity, values in WRONG.items() for value in values]
)
def test_a_wrong_check_digit_is_nobodys_number(entity: str, value: str) -> None:
    assert entity not in entities(value)
    assert entity not in entities(f"it is {value}, you know")


@pytest.mark.parametrize(
    ("entity", "value"),
    [pair for pair in FOUND if pair[0] in {"CREDIT_CARD", "IBAN", "DE_TAX_ID", "UK_NHS"}],
)
def test_each_single_wrong_digit_is_seen(entity: str, value: str) -> None:
    for place, character in enumerate(value):
        if character.isdigit():
            wrong = f"{value[:place]}{(int(character) + 1) % 10}{value[place + 1 :]}"
            assert entity not in entities(wrong), wrong


@pytest.mark.parametrize(
    ("entity", "text", "value"),
    [
        ("PHONE", "phone number: 2125550123", "2125550123"),
        ("PHONE", "Tel. 0301234567", "0301234567"),
        ("PHONE", "WhatsApp 0612345678!", "0612345678"),
        ("US_SSN", "SSN 078051120", "078051120"),
        ("UK_NHS", "NHS no. 9434765919", "9434765919"),
        ("SECRET", "Authorization: Bearer abcDEF123456abcDEF123456", "abcDEF123456abcDEF123456"),
        ("SECRET", "AUTHORIZATION: BEARER abcDEF123456abcDEF12", "abcDEF123456abcDEF12"),
        ("SECRET", "postgres://app:hunter2@db/x", "app:hunter2"),
        ("SECRET", "postgres://app:hun/ter2@db.example.org/x", "app:hun/ter2"),
        ("SECRET", "postgres://app:h@nter2@db.example.org/x", "app:h@nter2"),
        ("SECRET", "postgres://app:h@n/ter/2==@db.example.org/x", "app:h@n/ter/2=="),
        ("SECRET", "postgres://app:/ter2@db.example.org/x", "app:/ter2"),
        ("SECRET", "redis://:h@nter2@db", ":h@nter2"),
        ("SECRET", "redis://:8080@db", ":8080"),
        ("SECRET", "postgres://app:2nd/h(u)nt|er@db/x", "app:2nd/h(u)nt|er"),
        ("SECRET", "postgres://app:$ecret/2@db/x", "app:$ecret/2"),
        ("SECRET", "postgres://app:h'u,nter2@db/x", "app:h'u,nter2"),
        ("SECRET", "postgres://app:w0rd,P/ss@db/x", "app:w0rd,P/ss"),
        ("SECRET", "postgres://app:hu<nt/er2@db", "app:hu<nt/er2"),
        ("SECRET", "postgres://app:h'un@ter2@db", "app:h'un@ter2"),
        ("SECRET", "postgres://app:2!hun/ter@db", "app:2!hun/ter"),
        ("SECRET", "postgres://app:7+aB/cd==@db", "app:7+aB/cd=="),
        ("SECRET", "postgres://app:9.hun@ter2@db", "app:9.hun@ter2"),
        ("SECRET", "postgres://app:12'hunter@db", "app:12'hunter"),
        ("SECRET", "postgres://o'neil:hunter2@db", "o'neil:hunter2"),
        ("SECRET", "postgres://ada,team:hunter2@db", "ada,team:hunter2"),
        ("SECRET", "amqp://a:b@one,amqp://app:hun/ter2@two", "app:hun/ter2"),
        ("SECRET", f"aws_secret_access_key = {AWS}", AWS),
        ("SECRET", f"export AWS_SECRET_ACCESS_KEY={AWS}", AWS),
        ("SECRET", f'{{"SecretAccessKey": "{AWS}"}}', AWS),
        ("SECRET", f"<SecretAccessKey>{AWS}</SecretAccessKey>", AWS),
        ("SECRET", f"AWS Secret Access Key [None]: {AWS}", AWS),
        ("SECRET", f"My AWS secret key is {AWS}.", AWS),
        ("SECRET", f"the secret access key `{AWS}`", AWS),
        ("SECRET", f"my secret key ({AWS})", AWS),
        ("SECRET", f"secret_access_key, {AWS}", AWS),
    ],
)
def test_a_label_tells_what_a_number_is(entity: str, text: str, value: str) -> None:
    assert value in {text[f.start : f.end] for f in detector.find(text) if f.entity == entity}
    assert entity not in entities(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4111 1111 1111 1111 123", "4111 1111 1111 1111"),
        ("4111111111111111,12/27,123", "4111111111111111"),
        ("1234 4111 1111 1111 1111", "4111 1111 1111 1111"),
        ("4111 1111 1111 1111 2027", "4111 1111 1111 1111"),
        ("IBAN GB82 WEST 1234 5698 7654 32 please", "GB82 WEST 1234 5698 7654 32"),
        ("ada@example.org:hunter2", "ada@example.org"),
        ("a card4111 and 卡4111111111111111号", "4111111111111111"),
        ("mailto:ada@example.org?subject=x", "ada@example.org"),
        ("+1 212 555 0123 2024", "+1 212 555 0123"),
        ("+49 30 901820 5000000000", "+49 30 901820"),
        ("phone 2125550123 2024000000", "2125550123"),
        ("0049 30 901820 5000000000", "0049 30 901820"),
        ("from 2001:db8::1: refused", "2001:db8::1"),
        ("from ::ffff:192.0.2.128 on", "::ffff:192.0.2.128"),
    ],
)
def test_what_stands_beside_a_value_does_not_hide_it(text: str, value: str) -> None:
    assert value in {text[f.start : f.end] for f in detector.find(text)}


@pytest.mark.parametrize("line", PROSE.strip().splitlines())
def test_ordinary_text_has_no_findings(line: str) -> None:
    assert [line[f.start : f.end] for f in detector.find(line)] == []


def test_a_key_without_its_end_is_found_as_far_as_it_goes() -> None:
    key = "-----BEGIN PRIVATE KEY-----\n" + "MIIEpAIBAAKCAQEA" * 4
    text = f"{key}\nand that was all of it"
    assert [(f.entity, text[f.start : f.end]) for f in detector.find(text)] == [("SECRET", key)]


@given(
    before=st.text(max_size=20).map(lambda text: text + " "),
    after=st.text(max_size=20).map(lambda text: " " + text),
    sample=st.sampled_from([pair for pair in FOUND if pair[0] in {"EMAIL", "IBAN", "CREDIT_CARD"}]),
)
def test_places_are_counted_in_code_points(
    before: str, after: str, sample: tuple[str, str]
) -> None:
    entity, value = sample
    text = f"{before}{value}{after}"
    assert any(
        f.entity == entity and f.start <= len(before) and f.end >= len(before) + len(value)
        for f in detector.find(text)
    )


@given(st.text())
def test_findings_lie_within_the_text(text: str) -> None:
    for finding in detector.find(text):
        assert 0 <= finding.start < finding.end <= len(text)


def test_half_of_a_surrogate_pair_is_no_obstacle() -> None:
    assert detector.find("\ud83d ada@example.org") == [Finding("EMAIL", 2, 17)]


# Each was made to have a pattern begin, or go back, as often as can be.
HOSTILE = [
    "a",
    "1",
    "@",
    ".",
    "-",
    "+",
    " ",
    ":",
    "1.",
    "1 ",
    "1-",
    "+1 ",
    "0 ",
    "00 ",
    "a@a.",
    "@a.a",
    "@a." + "क" * 14 + "1 ",
    "a@",
    "::",
    "a:",
    "1:",
    "a.a@a-a.a",
    "4111 ",
    "4111 1111 1111 1112 ",
    "4111111111111112 ",
    "GB82 ",
    "GB82",
    "ZZ99 9999 ",
    "eyJ",
    "eyJ.",
    "eyJhbGciOiJI.",
    "eyJhbGciOi-",
    "-----BEGIN ",
    "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\n" + "A" * 40,
    "-----BEGIN RSA ",
    "://",
    "://a:",
    "://a:a",
    "://a:a/",
    "://a:@",
    "bearer ",
    "Bearer aaaaaaaaaaaaaaaaaaaaaaaa ",
    "BEARER ",
    "secret key ",
    "SECRET_ACCESS_KEY='",
    "sk-",
    "sk-aaaaaaaaaaaaaaaaaaaaaaaa ",
    "SG.",
    "SG.aaaaaaaaaaaaaaaaaa.",
    "ghp_",
    "phone ",
    "phone number is at ",
    "tel:",
    "ssn ",
    "nhs ",
    "(",
    "(0",
    "(212) ",
    "0123 ",
    "01 23 ",
    "123-45-",
    "999.999.999.999 ",
    "36 574 ",
    "ABCDEF80A01A000A ",
    "ada@example.org ",
    "\u00a0",
    "é@é.é",
    "\uff11",
    "\uff0d",
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_text_that_was_made_to_be_slow_takes_time_in_proportion(piece: str) -> None:
    def seconds(size: int) -> float:
        text = (piece * (size // len(piece) + 1))[:size]
        best = 60.0
        for _ in range(2):
            began = time.process_time()
            detector.find(text)
            best = min(best, time.process_time() - began)
        return best

    small = seconds(32_768)
    assert small < 1  # what is slow at each of its places is in proportion too
    large = seconds(262_144)
    # Eight times the text: quadratic work would take 64 times as long.
    assert large < 20 * max(small, 0.002), (small, large)


def test_a_megabyte_of_all_of_it_takes_seconds_at_most() -> None:
    text = "".join(piece * 400 for piece in HOSTILE)
    text *= 1_048_576 // len(text) + 1
    began = time.process_time()
    detector.find(text)
    assert time.process_time() - began < 10


def test_the_clock_sees_a_pattern_that_goes_back() -> None:
    """The control: what the test above would say of a careless pattern."""
    careless = re.compile(r"[a-z.]+@[a-z.]+")

    def seconds(size: int) -> float:
        began = time.process_time()
        careless.search("a" * size)
        return time.process_time() - began

    small, large = seconds(3_000), seconds(24_000)
    assert large > 20 * max(small, 0.002)
