"""Vectors of texts: without a model, from one on this machine, or from an API."""

from haive.core.persistence.embedding.calibration import Calibration
from haive.core.persistence.embedding.embedder import Embedder, QueryEmbedder
from haive.core.persistence.embedding.function import FunctionEmbedder
from haive.core.persistence.embedding.hashing import HashingEmbedder
from haive.core.persistence.embedding.minilm import MiniLMEmbedder
from haive.core.persistence.embedding.openai import OpenAIEmbedder
from haive.core.persistence.embedding.reference import calibrate
from haive.core.persistence.embedding.sentence_transformers import SentenceTransformerEmbedder

__all__ = [
    "Calibration",
    "Embedder",
    "FunctionEmbedder",
    "HashingEmbedder",
    "MiniLMEmbedder",
    "OpenAIEmbedder",
    "QueryEmbedder",
    "SentenceTransformerEmbedder",
    "calibrate",
]
