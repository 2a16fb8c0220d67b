from haive.core.persistence.vector import (
    VectorMemory, MemoryConfig,
    EmbeddingStrategy, IndexType
)

# Configure vector memory
vector_memory = VectorMemory(
    vector_store="pinecone",  # or "weaviate", "qdrant", "pgvector"
    config=MemoryConfig(
        api_key=os.getenv("PINECONE_API_KEY"),
        environment="production",
        index_name="haive-memories",

        # Embedding configuration
        embedding_model="text-embedding-3-large",
        embedding_dimensions=3072,
        embedding_batch_size=100,

        # Index configuration
        index_type=IndexType.HNSW,
        metric="cosine",
        ef_construction=200,
        m=16
    )
)

# Store conversation as memory
memory_id = await vector_memory.store_conversation(
    conversation=conversation,
    metadata={
        "importance": 0.9,
        "topics": ["architecture", "persistence"],
        "entities": ["PostgreSQL", "Supabase"],
        "timestamp": datetime.utcnow()
    },

    # Chunking strategy
    chunk_size=512,
    chunk_overlap=50,

    # Processing
    extract_keywords=True,
    generate_summary=True
)

# Semantic search
relevant_memories = await vector_memory.search(
    query="How does the persistence layer handle state?",
    top_k=10,
    filters={
        "timestamp": {"$gte": datetime.utcnow() - timedelta(days=30)},
        "importance": {"$gte": 0.7}
    },
    include_metadata=True,
    rerank=True  # Use cross-encoder for reranking
)

# Memory consolidation
consolidated = await vector_memory.consolidate_memories(
    time_window=timedelta(days=7),
    similarity_threshold=0.85,
    consolidation_strategy="hierarchical",
    preserve_important=True
)

# Episodic memory retrieval
episodes = await vector_memory.get_episodic_memories(
    user_id="user-123",
    context_query="Previous discussions about persistence",
    temporal_weight=0.3,  # Balance recency vs relevance
    max_episodes=5
)
