"""Durable conversations, checkpoints, sessions and memory for AI agents, on Postgres."""
