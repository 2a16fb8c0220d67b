"""Rerankers: the best candidates of a search, read again beside the query."""
