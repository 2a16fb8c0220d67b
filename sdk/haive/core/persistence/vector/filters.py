"""Filters over the metadata of memories, the same in every backend."""
