"""The whole platform on one Linux machine, for tests and development, without containers."""

from haive.core.persistence.local.stack import LocalStack

__all__ = ["LocalStack"]
