"""LangChain's vector store and chat history; needs ``haive-persistence[langchain]``."""

from haive.core.persistence.integrations._extra import missing

try:
    from haive.core.persistence.integrations._chat_history import (
        HaiveChatHistories,
        HaiveChatMessageHistory,
    )
    from haive.core.persistence.integrations._embeddings import HaiveEmbeddings, LangChainEmbedder
    from haive.core.persistence.integrations._vector_store import HaiveRetriever, HaiveVectorStore
except ModuleNotFoundError as error:
    raise missing(error, "langchain") from None

__all__ = [
    "HaiveChatHistories",
    "HaiveChatMessageHistory",
    "HaiveEmbeddings",
    "HaiveRetriever",
    "HaiveVectorStore",
    "LangChainEmbedder",
]
