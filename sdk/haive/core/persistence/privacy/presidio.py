"""Microsoft's Presidio as a detector: names and places with a model, more patterns without one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from haive.core.persistence.errors import ConfigurationError
from haive.core.persistence.privacy.detector import Finding
from haive.core.persistence.privacy.patterns import PatternDetector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from presidio_analyzer import AnalyzerEngine

_INSTALL = 'pip install "haive-persistence[pii]"'
_NAMES = {
    "CREDIT_CARD": "CREDIT_CARD",
    "EMAIL_ADDRESS": "EMAIL",
    "IBAN_CODE": "IBAN",
    "IP_ADDRESS": "IP_ADDRESS",
    "PHONE_NUMBER": "PHONE",
}
# In every second message, and seldom somebody's: looked for where they are asked for.
_UNASKED = frozenset({"DATE_TIME", "NRP", "ORGANIZATION", "URL", "UUID"})
# spaCy takes a million characters at once, and memory in proportion.
_PIECE, _OVERLAP = 100_000, 1_000


class PresidioDetector:
    """Finds what Presidio's recognizers find, and all that `PatternDetector` finds.

    Without ``model`` nothing but the library is needed: the text is cut into words by the rules of
    the language, and Presidio's pattern recognizers run with the words around a number raising or
    lowering their scores. Names and places need a model, as ``en_core_web_lg``: install it as the
    page of spaCy says. Nothing is ever downloaded from here, and no list of domains either.

    It takes about 40 ms for a kilobyte, 200 times as long as `PatternDetector`, and more with a
    model; the event loop waits meanwhile. Some of its patterns take more than linear time for a
    text that was made to be slow.

    Args:
        model: The name or folder of an installed spaCy model.
        language: The language of the texts, as ``en`` or ``de``.
        entities: Look for these alone, in the names of a placeholder (``PERSON``, ``EMAIL``, …);
            for all but dates, URLs, UUIDs, organisations and nationalities if not given.
        min_score: What Presidio is less sure of is let go.

    Raises:
        ConfigurationError: The library or the model is not installed, or an entity not known.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        language: str = "en",
        entities: frozenset[str] | None = None,
        min_score: float = 0.5,
    ) -> None:
        self._patterns = PatternDetector()
        self._language = language
        self._min_score = min_score
        self._engine = _engine(model, language)
        theirs = {
            name: _NAMES.get(name, name) for name in self._engine.get_supported_entities(language)
        }
        known = {*theirs.values(), *self._patterns.entities}
        if entities is None:
            entities = frozenset(known - _UNASKED)
        elif unknown := entities - known:
            raise ConfigurationError(
                f"Presidio does not find {', '.join(sorted(unknown))} here.",
                hint=f"It finds {', '.join(sorted(known))}.",
            )
        self._entities = frozenset(entities)
        self._theirs = sorted(name for name, ours in theirs.items() if ours in self._entities)

    @property
    def entities(self) -> frozenset[str]:
        """All that it can find."""
        return self._entities

    def find(self, text: str) -> list[Finding]:
        """What is in a text; findings may overlap."""
        found = {
            finding for finding in self._patterns.find(text) if finding.entity in self._entities
        }
        if not self._theirs:
            return list(found)
        for start, piece in _pieces(text):
            for result in self._engine.analyze(
                piece,
                self._language,
                entities=self._theirs,
                score_threshold=self._min_score,
            ):
                entity = _NAMES.get(result.entity_type, result.entity_type)
                found.add(Finding(entity, start + result.start, start + result.end, result.score))
        return list(found)


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """A long text in pieces that overlap, so that what stands at a cut is whole in one of them."""
    for start in range(0, max(len(text) - _OVERLAP, 1), _PIECE - _OVERLAP):
        yield start, text[start : start + _PIECE]


def _engine(model: str | None, language: str) -> AnalyzerEngine:
    try:
        import spacy  # noqa: PLC0415 - of the extra
        from presidio_analyzer import AnalyzerEngine, RecognizerRegistry  # noqa: PLC0415
        from presidio_analyzer.nlp_engine import NlpArtifacts, SpacyNlpEngine  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError("Presidio is not installed.", hint=f"{_INSTALL}.") from error

    class Words(SpacyNlpEngine):  # type: ignore[misc] # of a package without types
        """Words of a language by its rules, without a model: no names are found."""

        def load(self) -> None:
            self.nlp = {language: spacy.blank(language)}

        def process_text(self, text: str, language: str) -> NlpArtifacts:
            doc = self.nlp[language](text)
            for token in doc:
                token.lemma_ = token.lower_  # words near a number are compared by their lemmas
            return self._doc_to_nlp_artifact(doc, language)

    if model is None:
        words = Words()
    elif spacy.util.is_package(model) or Path(model).is_dir():
        words = SpacyNlpEngine(models=[{"lang_code": language, "model_name": model}])
    else:  # Presidio would download it
        raise ConfigurationError(
            f"The spaCy model {model} is not installed.",
            hint=f"`python -m spacy download {model}`, or leave it out to look for no names.",
        )
    try:
        words.load()
    except (ImportError, OSError) as error:
        what = f"rules for {language!r}" if model is None else f"model in {model}"
        raise ConfigurationError(f"spaCy has no {what}.") from error
    registry = RecognizerRegistry(supported_languages=[language])
    registry.load_predefined_recognizers(languages=[language], nlp_engine=words)
    # Ours finds addresses too, and asks no server for a list of domains.
    registry.remove_recognizer("EmailRecognizer")
    if model is None:
        registry.remove_recognizer("SpacyRecognizer")  # it would promise names and find none
    return AnalyzerEngine(registry=registry, nlp_engine=words, supported_languages=[language])
