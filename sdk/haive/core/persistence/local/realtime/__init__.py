"""Realtime of the local stack: channels with broadcast, presence and changes of tables."""
