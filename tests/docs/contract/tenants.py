from haive.core.persistence.multitenancy import (
    TenantManager, TenantConfig,
    IsolationLevel, ResourceQuota
)

# Configure multi-tenancy
tenant_manager = TenantManager(
    base_store=postgres_store,
    config=TenantConfig(
        isolation_level=IsolationLevel.SCHEMA,  # Schema-based isolation
        enable_row_level_security=True,
        enable_encryption_at_rest=True,
        
        # Resource quotas
        default_quota=ResourceQuota(
            max_conversations=10000,
            max_storage_gb=100,
            max_requests_per_minute=1000,
            max_tokens_per_month=10_000_000
        )
    )
)

# Create tenant
tenant = await tenant_manager.create_tenant(
    tenant_id="org-123",
    name="Acme Corporation",
    settings={
        "timezone": "America/New_York",
        "data_retention_days": 90,
        "compliance_mode": "HIPAA"
    },
    custom_quota=ResourceQuota(
        max_conversations=50000,
        max_storage_gb=500
    )
)

# Tenant-scoped operations
async with tenant_manager.tenant_context("org-123") as tenant_store:
    # All operations scoped to tenant
    conversation = await tenant_store.create_conversation(...)
    
# Cross-tenant analytics (admin only)
analytics = await tenant_manager.get_analytics(
    include_tenants=["org-123", "org-456"],
    metrics=["conversation_count", "token_usage", "storage_used"],
    time_range="last_30_days"
)
