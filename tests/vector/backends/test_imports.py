"""What a backend needs is imported when it is made, and not before."""

from __future__ import annotations

import subprocess
import sys

_CODE = """
import sys
import haive.core.persistence
from haive.core.persistence.vector.backends import pinecone, qdrant, weaviate
from haive.core.persistence.vector import filters
heavy = {"qdrant_client", "pinecone", "weaviate", "grpc", "snowballstemmer"}
print(sorted(heavy & sys.modules.keys()))
"""


def test_no_client_is_imported_before_it_is_used() -> None:
    done = subprocess.run([sys.executable, "-c", _CODE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
