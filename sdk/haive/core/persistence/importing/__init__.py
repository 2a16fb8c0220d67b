"""Conversations from elsewhere: files of other programs, and our own exports."""

from haive.core.persistence.importing.importer import import_file
from haive.core.persistence.importing.report import ImportReport, SkipCount

__all__ = ["ImportReport", "SkipCount", "import_file"]
