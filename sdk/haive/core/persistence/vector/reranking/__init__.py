"""Rerankers: the best candidates of a search, read again beside the query."""

from haive.core.persistence.vector.reranking.cross_encoder import CrossEncoder
from haive.core.persistence.vector.reranking.http import HttpReranker
from haive.core.persistence.vector.reranking.late_interaction import LateInteraction
from haive.core.persistence.vector.reranking.protocol import Candidate, Reranker

__all__ = ["Candidate", "CrossEncoder", "HttpReranker", "LateInteraction", "Reranker"]
