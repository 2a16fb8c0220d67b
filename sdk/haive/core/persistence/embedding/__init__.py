"""Vectors of texts: without a model, from one on this machine, or from an API."""

from haive.core.persistence.embedding.calibration import Calibration
from haive.core.persistence.embedding.embedder import Embedder, QueryEmbedder
from haive.core.persistence.embedding.hashing import HashingEmbedder
from haive.core.persistence.embedding.minilm import MiniLMEmbedder
from haive.core.persistence.embedding.openai import OpenAIEmbedder
from haive.core.persistence.embedding.reference import calibrate

__all__ = [
    "Calibration",
    "Embedder",
    "HashingEmbedder",
    "MiniLMEmbedder",
    "OpenAIEmbedder",
    "QueryEmbedder",
    "calibrate",
]
