"""Personal data: found before it is stored, and tagged, masked or refused."""

from haive.core.persistence.privacy.detector import Detector, Finding
from haive.core.persistence.privacy.patterns import PatternDetector
from haive.core.persistence.privacy.policy import PIIMode, PIIPolicy
from haive.core.persistence.privacy.presidio import PresidioDetector
from haive.core.persistence.privacy.redactor import Redacted, Redactor

__all__ = [
    "Detector",
    "Finding",
    "PIIMode",
    "PIIPolicy",
    "PatternDetector",
    "PresidioDetector",
    "Redacted",
    "Redactor",
]
