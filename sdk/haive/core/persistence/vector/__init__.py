"""Memory: what was said and learned, found again by its meaning and its words."""

from haive.core.persistence.vector.config import (
    EmbeddingStrategy,
    IndexType,
    MemoryConfig,
    RetrievalWeights,
)
from haive.core.persistence.vector.memory import VectorMemory
from haive.core.persistence.vector.models import (
    Consolidation,
    ConsolidationGroup,
    ConsolidationPlan,
    Episode,
    ForgetResult,
    Memory,
    MemoryHit,
    MemoryKind,
    MemoryStats,
)

__all__ = [
    "Consolidation",
    "ConsolidationGroup",
    "ConsolidationPlan",
    "EmbeddingStrategy",
    "Episode",
    "ForgetResult",
    "IndexType",
    "Memory",
    "MemoryConfig",
    "MemoryHit",
    "MemoryKind",
    "MemoryStats",
    "RetrievalWeights",
    "VectorMemory",
]
