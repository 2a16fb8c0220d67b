"""The audit log of a tenant: read it, export it, and prove that nothing in it was changed."""

from haive.core.persistence.audit._export import verify_export
from haive.core.persistence.audit._keys import AuditKey
from haive.core.persistence.audit.log import AuditLog
from haive.core.persistence.audit.models import AuditEntry, AuditHead, Verification

__all__ = ["AuditEntry", "AuditHead", "AuditKey", "AuditLog", "Verification", "verify_export"]
