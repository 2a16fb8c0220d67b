"""Adapters for other libraries, each in a module of its own that alone imports its library."""
