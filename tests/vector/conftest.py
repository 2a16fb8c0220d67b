"""What the tests of memory share."""

from __future__ import annotations

import sys
from pathlib import Path

# Test folders are no packages; what several of these files use is imported by its name.
sys.path.append(str(Path(__file__).parent))
