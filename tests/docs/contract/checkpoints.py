from haive.core.persistence.checkpointer import (
    Checkpointer, CheckpointConfig,
    CheckpointStrategy, RecoveryPolicy
)

# Configure checkpointer
checkpointer = Checkpointer(
    store=postgres_store,
    config=CheckpointConfig(
        auto_checkpoint=True,
        checkpoint_interval=5,  # Every 5 nodes
        max_checkpoints_per_thread=50,
        compression="zstd",  # Better compression
        encryption_key=os.getenv("CHECKPOINT_KEY"),

        # Retention policy
        retention_days=30,
        keep_minimum=10,
        keep_failed_states=True
    ),
    strategy=CheckpointStrategy.ADAPTIVE  # Smart checkpointing
)

# Checkpoint workflow state
checkpoint_id = await checkpointer.save(
    thread_id="workflow-123",
    state=current_state,
    metadata={
        "node": "analysis",
        "iteration": 3,
        "confidence": 0.85,
        "parent_checkpoint": parent_id
    },
    tags=["milestone", "validated"]
)

# Time-travel queries
history = await checkpointer.get_history(
    thread_id="workflow-123",
    include_failed=False,
    include_metadata=True
)

# Find specific checkpoint
checkpoint = await checkpointer.find_checkpoint(
    thread_id="workflow-123",
    tags=["milestone"],
    before_timestamp=cutoff_time,
    with_state_matching={"status": "completed"}
)

# Restore to checkpoint
restored_state = await checkpointer.restore(
    checkpoint_id=checkpoint.id,
    validate_schema=True
)

# Branch from checkpoint
branch_id = await checkpointer.create_branch(
    from_checkpoint=checkpoint.id,
    branch_name="experiment-1",
    metadata={"purpose": "testing new approach"}
)

# Compare checkpoints
diff = await checkpointer.compare(
    checkpoint_a=checkpoint_id_1,
    checkpoint_b=checkpoint_id_2,
    include_details=True
)
