"""What a policy does to texts and JSON."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haive.core.persistence.errors import (
    ConfigurationError,
    ContentTooLargeError,
    InvalidInputError,
    PersonalDataError,
)
from haive.core.persistence.models import ImagePart, TextPart, ToolCallPart, ToolResultPart
from haive.core.persistence.privacy import Finding, PatternDetector, PIIMode, PIIPolicy, Redactor

EMAIL, CARD, PHONE = "ada@example.org", "4111 1111 1111 1111", "+49 30 901820"
patterns = PatternDetector()


def redactor(mode: str = "mask", **settings: object) -> Redactor:
    return Redactor(PIIPolicy(mode=mode, **settings))


def masked(value: object, **settings: object) -> object:
    return redactor(**settings).apply(value).value


def test_a_mask_says_what_it_was_and_whether_it_was_the_same() -> None:
    text = f"{EMAIL} or ADA@example.org, not bob@example.org; {CARD} is {CARD.replace(' ', '')}."
    assert masked(text) == (
        "[EMAIL_1] or [EMAIL_1], not [EMAIL_2]; [CREDIT_CARD_1] is [CREDIT_CARD_1]."
    )


def test_texts_are_masked_at_any_depth_and_keys_stay() -> None:
    value = {"to": [EMAIL, {"cc": f"x {EMAIL}"}], EMAIL: 4111111111111111, "n": None, "ok": True}
    assert masked(value) == {
        "to": ["[EMAIL_1]", {"cc": "x [EMAIL_1]"}], EMAIL: 4111111111111111, "n": None, "ok": True,
    }  # fmt: skip


def test_tags_say_where_and_not_what() -> None:
    value = {"a b": [f"🐈 {EMAIL}"], "c": PHONE}
    done = redactor("tag").apply(value)
    assert done.value == value
    assert done.tags == [
        {"entity": "EMAIL", "field": '$["a b"][0]', "start": 2, "end": 2 + len(EMAIL)},
        {"entity": "PHONE", "field": "$.c", "start": 0, "end": len(PHONE)},
    ]


def test_tags_are_places_of_the_text_that_is_stored() -> None:
    done = redactor("tag", overrides={"EMAIL": "mask"}).apply(f"{EMAIL}, {PHONE}")
    (tag,) = done.tags
    assert done.value[tag["start"] : tag["end"]] == PHONE
    assert done.value.startswith("[EMAIL_1], ")


def test_a_refusal_names_entities_and_paths_and_never_values() -> None:
    value = {"list": [f"x {EMAIL}", PHONE], f"{EMAIL}": {"deep": CARD}}
    with pytest.raises(PersonalDataError) as caught:
        redactor("refuse").apply(value)
    error = caught.value
    assert error.entities == ("CREDIT_CARD", "EMAIL", "PHONE")
    assert error.paths == ("$.*", "$.list[0]", "$.list[1]", "$.*.deep")
    told = "\n".join(
        (str(error), repr(error), repr(error.__dict__), *traceback.format_exception(error))
    )
    assert not [secret for secret in (EMAIL, PHONE, CARD) if secret in told.replace(__file__, "")]
    assert isinstance(error, InvalidInputError)


def test_modes_of_single_entities() -> None:
    policy = {
        "overrides": {"EMAIL": "off", "SECRET": "refuse"},
        "entities": {"EMAIL", "PHONE", "SECRET"},
    }
    assert masked(f"{EMAIL} {PHONE}, {CARD}", **policy) == f"{EMAIL} [PHONE_1], {CARD}"
    with pytest.raises(PersonalDataError, match=r"SECRET at \$"):
        masked("AKIA" + "IOSFODNN7EXAMPLE", **policy)
    assert masked(EMAIL, mode="off") == EMAIL


@dataclass
class Fixed:
    """Finds what it was told to find, in one text alone."""

    text: str
    findings: list[Finding]
    entities: frozenset[str] = frozenset({"A", "B", "C"})

    def find(self, text: str) -> list[Finding]:
        return self.findings if text == self.text else []


@pytest.mark.parametrize(
    ("findings", "expected"),
    [
        ([Finding("A", 0, 4), Finding("B", 2, 9)], "[B_1]9"),  # the longest, over both
        ([Finding("A", 0, 4, 0.6), Finding("B", 0, 4, 0.9)], "[B_1]456789"),  # the surest
        ([Finding("B", 0, 4), Finding("A", 0, 4)], "[A_1]456789"),  # the first by name
        ([Finding("A", 0, 4), Finding("B", 4, 6)], "[A_1][B_1]6789"),  # side by side
        ([Finding("A", 0, 2), Finding("B", 1, 6), Finding("C", 5, 10)], "[B_1]"),  # a chain
        ([Finding("A", 0, 4, 0.3)], "0123456789"),  # not sure enough
    ],
)
def test_findings_that_overlap_are_one(findings: list[Finding], expected: str) -> None:
    for order in (findings, findings[::-1]):
        assert masked("0123456789", detector=Fixed("0123456789", order)) == expected


def test_the_stricter_mode_wins_where_findings_overlap() -> None:
    findings = [Finding("A", 0, 9), Finding("B", 2, 4)]
    fixed = Fixed("0123456789", findings)
    assert masked("0123456789", detector=fixed, overrides={"A": "tag"}) == "[B_1]9"
    with pytest.raises(PersonalDataError) as caught:
        masked("0123456789", detector=fixed, overrides={"B": "refuse"})
    assert caught.value.entities == ("B",)


def test_a_finding_beside_the_text_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="beside"):
        masked("0123", detector=Fixed("0123", [Finding("A", 2, 9)]))


class Greedy:
    """Takes every word for a name: its placeholders too."""

    entities = frozenset({"NAME"})

    def find(self, text: str) -> list[Finding]:
        return [Finding("NAME", 0, len(text))] if text else []


class Endless:
    """Finds more each time that something was masked."""

    entities = frozenset({"NAME"})

    def find(self, text: str) -> list[Finding]:
        place = text.rfind("x")
        return [Finding("NAME", place, place + 1)] if place >= 0 else []


def test_a_detector_that_finds_placeholders_comes_to_an_end() -> None:
    assert masked("Ada Lovelace", detector=Greedy()) == "[NAME_1]"


def test_a_text_that_goes_on_to_have_findings_is_masked_whole() -> None:
    assert masked("axa", detector=Endless()) == "a[NAME_1]a"
    assert masked("x" * 50, detector=Endless()) == "[PERSONAL_DATA]"


def test_a_policy_that_asks_for_what_nobody_finds_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="EMIAL"):
        redactor(overrides={"EMIAL": "refuse"})
    with pytest.raises(ConfigurationError, match="PERSON"):
        redactor(entities={"PERSON"})
    with pytest.raises(ConfigurationError, match="mode"):
        PIIPolicy(mode="hide")
    with pytest.raises(ConfigurationError, match="detector"):
        PIIPolicy(detector="nonsense")


def test_a_policy_is_frozen_and_goes_through_json() -> None:
    policy = PIIPolicy(mode="tag", overrides={"EMAIL": "mask"}, entities={"EMAIL"})
    assert PIIPolicy.model_validate_json(policy.model_dump_json()) == policy
    assert policy.mode_of("EMAIL") is PIIMode.MASK
    with pytest.raises(ValueError, match="frozen"):
        policy.mode = PIIMode.OFF
    with pytest.raises(TypeError):
        policy.overrides["EMAIL"] = PIIMode.OFF  # type: ignore[index]


def test_parts_keep_what_finds_them_again() -> None:
    image = ImagePart(url=f"https://example.org/?to={EMAIL}", caption=EMAIL)
    parts = [
        TextPart(text=f"to {EMAIL}", note=[EMAIL]),
        image,
        ToolCallPart(id=EMAIL, name="send", arguments={"to": {"mail": EMAIL}, "n": 1}),
        ToolResultPart(tool_call_id=EMAIL, content=[{"sent": f"{EMAIL}"}, 3]),
    ]
    content, metadata = redactor().message(parts, {"user": EMAIL})
    assert content == [
        TextPart(text="to [EMAIL_1]", note=["[EMAIL_1]"]),
        image,
        ToolCallPart(id=EMAIL, name="send", arguments={"to": {"mail": "[EMAIL_1]"}, "n": 1}),
        ToolResultPart(tool_call_id=EMAIL, content=[{"sent": "[EMAIL_1]"}, 3]),
    ]
    assert metadata == {"user": "[EMAIL_1]"}


def test_tags_of_a_message_stand_in_its_metadata_and_replace_what_stood_there() -> None:
    parts = [{"type": "tool_call", "id": "1", "name": "send", "arguments": {"to": EMAIL}}]
    content, metadata = redactor("tag").message(parts, {"k": 1, "pii": [{"entity": "MADE_UP"}]})
    place = {"entity": "EMAIL", "field": "$.content[0].arguments.to", "start": 0, "end": len(EMAIL)}
    assert metadata == {"k": 1, "pii": [place]}
    assert content == [ToolCallPart(id="1", name="send", arguments={"to": EMAIL})]
    assert redactor("tag").message("nothing", {"pii": 1}) == ("nothing", {})


def test_bounds_come_before_the_search() -> None:
    class Never:
        entities = frozenset({"A"})

        def find(self, text: str) -> list[Finding]:
            raise AssertionError("searched")

    guard = redactor(detector=Never())
    with pytest.raises(ContentTooLargeError):
        guard.message("x" * (8 * 1024 * 1024 + 1), None)
    with pytest.raises(InvalidInputError, match="surrogate"):
        guard.message("\ud83d", None)
    with pytest.raises(InvalidInputError):
        guard.message([{"type": "nonsense"}], None)


def test_json_that_is_too_deep_is_refused() -> None:
    value: object = EMAIL
    for _ in range(900):
        value = [value]
    with pytest.raises(InvalidInputError, match="deep"):
        redactor().message("", {"k": value})


PIECES = st.one_of(
    st.text(max_size=6),
    st.text(alphabet="0123456789 -.+()/@:[]aZ", max_size=12),
    st.sampled_from(
        [EMAIL, CARD, PHONE, "GB82WEST12345698765432", "078-05-1120", "2001:db8::1", "192.0.2.1",
         "943 476 5919", "86095742719", "54362315K", "390.533.447-05", "phone ", "eyJ", "://a:b@",
         "AKIAIOSFODNN7EXAMPLE", "-----BEGIN PRIVATE KEY-----", "[EMAIL_1]", "(", "0", "é", "🐈"]
    ),
)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=8).map("".join)


@given(TEXTS)
def test_what_was_masked_has_no_findings(text: str) -> None:
    done = masked(text.encode("utf-8", "ignore").decode().replace("\x00", ""))
    assert patterns.find(str(done)) == []


@given(TEXTS)
def test_the_same_text_is_masked_the_same_and_masking_again_changes_nothing(text: str) -> None:
    text = text.encode("utf-8", "ignore").decode().replace("\x00", "")
    once = masked(text)
    assert masked(text) == once
    assert masked(once) == once


@given(TEXTS)
def test_tags_cover_every_finding(text: str) -> None:
    text = text.encode("utf-8", "ignore").decode().replace("\x00", "")
    done = redactor("tag").apply(text)
    assert done.value == text
    spans = [(tag["start"], tag["end"]) for tag in done.tags]
    assert spans == sorted(spans)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    for finding in patterns.find(text):
        assert any(start <= finding.start and finding.end <= end for start, end in spans)
