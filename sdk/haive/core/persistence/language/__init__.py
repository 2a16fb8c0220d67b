"""Sentences and summaries: by what stands there, or by a language model."""

from haive.core.persistence.language.chat import ChatModel
from haive.core.persistence.language.extractive import Extract, extract
from haive.core.persistence.language.openai import OpenAIChat

__all__ = ["ChatModel", "Extract", "OpenAIChat", "extract"]
