"""The SQL that makes the partitions of realtime.messages, for today and the next days."""

from __future__ import annotations

from pathlib import Path
from typing import Final

PARTITIONS: Final = Path(__file__).with_name("partitions.sql").read_text()
