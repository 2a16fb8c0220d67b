from haive.core.persistence import PostgresStore, SupabaseStore
from haive.core.persistence.config import PersistenceConfig

# Configure PostgreSQL persistence
config = PersistenceConfig(
    connection_string=os.getenv("DATABASE_URL"),
    schema="haive_production",
    pool_size=20,
    max_overflow=10,
    pool_timeout=30,
    echo_sql=False,  # Set True for debugging
    # Advanced options
    statement_timeout="30s",
    lock_timeout="10s",
    idle_in_transaction_session_timeout="60s",
    # Performance tuning
    work_mem="256MB",
    maintenance_work_mem="512MB",
    effective_cache_size="4GB",
)

# Create store with automatic schema migration
store = PostgresStore(config)
await store.initialize(create_schema=True, run_migrations=True, check_version=True)

# Supabase cloud persistence
supabase_store = SupabaseStore(
    url=os.getenv("SUPABASE_URL"),
    key=os.getenv("SUPABASE_ANON_KEY"),
    schema="public",
    # Realtime subscriptions
    enable_realtime=True,
    realtime_channels=["conversations", "agent_states"],
    # Row-level security
    enable_rls=True,
    auth_header="Authorization",
)
