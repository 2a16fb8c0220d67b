"""Vectors of texts: without a model, from one on this machine, or from an API."""

from haive.core.persistence.embedding.calibration import Calibration
from haive.core.persistence.embedding.embedder import Embedder
from haive.core.persistence.embedding.hashing import HashingEmbedder

__all__ = ["Calibration", "Embedder", "HashingEmbedder"]
