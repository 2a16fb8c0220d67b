"""Tenants: whose data it is, kept apart by row, by schema or by database."""

from haive.core.persistence.multitenancy._analytics import Analytics, TenantMetrics, TokenSums
from haive.core.persistence.multitenancy._members import Invitation, Member, Members
from haive.core.persistence.multitenancy._retention import Expired, apply_retention
from haive.core.persistence.multitenancy._scrub import Scrubbed, scrub
from haive.core.persistence.multitenancy._subjects import Erased, Exported, Subjects
from haive.core.persistence.multitenancy._usage import Reconciliation, ResourceUse, TenantUsage
from haive.core.persistence.multitenancy.compliance import ComplianceMode
from haive.core.persistence.multitenancy.config import (
    AuditMode,
    IsolationLevel,
    ResourceQuota,
    TenantConfig,
)
from haive.core.persistence.multitenancy.manager import TenantManager
from haive.core.persistence.multitenancy.models import Tenant, TenantStatus

__all__ = [
    "Analytics",
    "AuditMode",
    "ComplianceMode",
    "Erased",
    "Expired",
    "Exported",
    "Invitation",
    "IsolationLevel",
    "Member",
    "Members",
    "Reconciliation",
    "ResourceQuota",
    "ResourceUse",
    "Scrubbed",
    "Subjects",
    "Tenant",
    "TenantConfig",
    "TenantManager",
    "TenantMetrics",
    "TenantStatus",
    "TenantUsage",
    "TokenSums",
    "apply_retention",
    "scrub",
]
