"""The checkpointer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haive.core.persistence._encoding import whole_number
from haive.core.persistence.checkpointer._arguments import (
    check_name,
    check_namespace,
    check_place,
    mapping,
    moment,
)
from haive.core.persistence.checkpointer._branching import Branches
from haive.core.persistence.checkpointer._engine import Engine, checked_tags
from haive.core.persistence.checkpointer._nodes import NodeWatch
from haive.core.persistence.checkpointer._reading import Reader
from haive.core.persistence.checkpointer._rewriting import Rewriter
from haive.core.persistence.checkpointer._saving import PARENT, Saver
from haive.core.persistence.checkpointer._tagging import Tagger
from haive.core.persistence.checkpointer._threads import Threads
from haive.core.persistence.checkpointer.config import (
    CheckpointConfig,
    CheckpointStrategy,
    RecoveryPolicy,
)
from haive.core.persistence.errors import ConfigurationError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from pydantic import BaseModel

    from haive.core.persistence.checkpointer._diff import Difference
    from haive.core.persistence.checkpointer.models import Branch, Checkpoint, Pruned, Thread
    from haive.core.persistence.store import Store

# Most of anything in one answer.
_PAGE = 1_000


class Checkpointer:
    """Saves states of workflows, and gives back any of them.

    A thread is one workflow. Its checkpoints form branches: each follows a parent, and only one
    can follow the head of a branch, so that two writers never silently overwrite each other.

    Args:
        store: An open `PostgresStore` or `SupabaseStore`.
        config: How checkpoints are made and kept.
        strategy: When `on_node` saves.

    Raises:
        ConfigurationError: One of them is something else.
    """

    def __init__(
        self,
        store: Store,
        config: CheckpointConfig | None = None,
        strategy: CheckpointStrategy = CheckpointStrategy.ADAPTIVE,
    ) -> None:
        if config is not None and not isinstance(config, CheckpointConfig):
            raise ConfigurationError(
                "config is no CheckpointConfig.", hint="Pass CheckpointConfig(…), or None."
            )
        if strategy not in list(CheckpointStrategy):
            raise ConfigurationError(f"The strategies are {', '.join(CheckpointStrategy)}.")
        self.config = config or CheckpointConfig()
        self.strategy = CheckpointStrategy(strategy)
        self._engine = Engine(store, self.config)
        self._reader = Reader(self._engine)
        self._rewriter = Rewriter(self._engine)
        self._nodes = NodeWatch(self.strategy, self.config.checkpoint_interval)
        self._branches = Branches(self._engine, self._reader, self._rewriter)
        self._skips_same = self.strategy in {
            CheckpointStrategy.ADAPTIVE,
            CheckpointStrategy.ON_CHANGE,
        }
        self._saver = Saver(self._engine, self._rewriter, self._branches)
        self._tagger = Tagger(self._engine, self._reader)
        self._threads = Threads(self._engine, self._rewriter)

    # -- saving ----------------------------------------------------------------------------------

    async def save(
        self,
        thread_id: str,
        state: object,
        metadata: Mapping[str, Any] | None = None,
        tags: Sequence[str] = (),
        *,
        parent: UUID | str | None = None,
        branch: UUID | str | None = None,
        fork: str | None = None,
        namespace: str = "",
        failed: bool = False,
        user_id: str | None = None,
    ) -> UUID:
        """Save a state and return the id of its checkpoint when it is durable.

        With a parent the checkpoint follows that one and no other: if another checkpoint came
        first, nothing is saved. Without one it follows whatever is the head of the branch. Under
        the strategies ADAPTIVE and ON_CHANGE a state that equals the one it would follow is not
        saved again, if it comes without metadata and tags and the one before is not a failed one:
        the id is then that of the one before.

        Args:
            thread_id: The workflow; it begins with its first checkpoint.
            state: Any data, pydantic models, dataclasses and LangChain messages included.
            metadata: A JSON object. ``parent_checkpoint`` in it is the same as ``parent``.
            tags: To find it by.
            parent: The checkpoint that this state came from.
            branch: Name or id of a branch; if not given, the parent's, else ``main``.
            fork: If the parent is not the head of the branch any more, begin a branch of this name
                instead of failing.
            namespace: A part of the thread with a history of its own.
            failed: The state is one of a failure; see `mark_failed`.
            user_id: Whose the thread is, if this begins it: that user may read it.

        Raises:
            BranchConflict: Another checkpoint follows the parent already; it is the ``winner``.
            NotFoundError: The thread has no such parent or branch.
            StateError: The state holds something that cannot be stored; ``path`` says where.
        """
        about = mapping(metadata, "metadata")
        told = bool(about.keys() - {PARENT} or tags or failed)
        checkpoint_id, _ = await self._saver.save(
            thread_id,
            state,
            about,
            tags,
            parent=parent,
            branch=branch,
            fork=fork,
            namespace=namespace,
            failed=failed,
            user_id=user_id,
            skip_same=self._skips_same and not told,
        )
        return checkpoint_id

    async def on_node(
        self,
        thread_id: str,
        node: str,
        state: object,
        *,
        metadata: Mapping[str, Any] | None = None,
        branch: UUID | str | None = None,
        namespace: str = "",
        user_id: str | None = None,
    ) -> UUID | None:
        """Tell that a node of the workflow has run; the strategy says whether that is saved.

        Args:
            thread_id: The workflow; it begins with its first checkpoint.
            node: What has run; it is in the metadata of the checkpoint.
            state: What it left; see `save`.
            metadata: More about it.
            branch: Name or id of a branch; if not given, ``main``.
            namespace: A part of the thread with a history of its own.
            user_id: Whose the thread is, if this begins it: that user may read it.

        Returns:
            The id of the new checkpoint; None where nothing was saved.

        Raises:
            NotFoundError: The thread has no such branch.
            StateError: The state holds something that cannot be stored; ``path`` says where.
        """
        if not self.config.auto_checkpoint or self.strategy is CheckpointStrategy.MANUAL:
            return None
        check_place(thread_id, namespace, branch)
        about = {**mapping(metadata, "metadata"), "node": node}
        watched = (thread_id, namespace, str(branch or "main"))
        if not self._nodes.wants(watched, state):
            return None
        checkpoint_id, is_new = await self._saver.save(
            thread_id,
            state,
            about,
            (),
            branch=branch,
            namespace=namespace,
            user_id=user_id,
            skip_same=self._skips_same,
        )
        self._nodes.saved(watched, state)
        return checkpoint_id if is_new else None

    async def mark_failed(
        self,
        checkpoint_id: UUID | str,
        *,
        failed: bool = True,
        thread_id: str | None = None,
        namespace: str = "",
    ) -> None:
        """Mark a checkpoint as the state of a failure, or take that back.

        Raises:
            NotFoundError: There is no such checkpoint.
        """
        await self._tagger.annotate(checkpoint_id, thread_id, namespace, {"failed": failed})

    async def tag(
        self,
        checkpoint_id: UUID | str,
        *tags: str,
        thread_id: str | None = None,
        namespace: str = "",
    ) -> None:
        """Add tags to a checkpoint.

        Raises:
            NotFoundError: There is no such checkpoint.
        """
        await self._tagger.retag(checkpoint_id, thread_id, namespace, add=checked_tags(tags))

    async def untag(
        self,
        checkpoint_id: UUID | str,
        *tags: str,
        thread_id: str | None = None,
        namespace: str = "",
    ) -> None:
        """Take tags off a checkpoint.

        Raises:
            NotFoundError: There is no such checkpoint.
        """
        await self._tagger.retag(checkpoint_id, thread_id, namespace, remove=checked_tags(tags))

    # -- history ---------------------------------------------------------------------------------

    async def get_history(
        self,
        thread_id: str,
        *,
        include_failed: bool = False,
        include_metadata: bool = True,
        include_state: bool = False,
        branch: UUID | str | None = None,
        namespace: str = "",
        limit: int = 100,
        before: int | None = None,
    ) -> list[Checkpoint]:
        """The checkpoints of a thread, newest first.

        Args:
            thread_id: Which thread.
            include_failed: Failed ones too.
            include_metadata: With metadata and tags.
            include_state: With the states themselves.
            branch: Only of this branch, and of what it goes back to; if not given, of all.
            namespace: Which part of the thread.
            limit: How many, 1 to 1,000.
            before: Only those with a lower ``seq``: that of the last one of the page before.
        """
        check_place(thread_id, namespace, branch)
        whole_number(limit, "limit", 1, _PAGE)
        if before is not None:
            whole_number(before, "before")
        return await self._reader.history(
            limit,
            before,
            thread_id=thread_id,
            namespace=namespace,
            branch=branch and str(branch),
            failed=None if include_failed else False,
            details=include_metadata,
            states=include_state,
        )

    async def find_checkpoint(
        self,
        thread_id: str | None = None,
        *,
        tags: Sequence[str] = (),
        before_timestamp: datetime | None = None,
        after_timestamp: datetime | None = None,
        with_state_matching: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        include_failed: bool = False,
        branch: UUID | str | None = None,
        namespace: str = "",
    ) -> Checkpoint | None:
        """The newest checkpoint that is all of what is asked, without its state; else None.

        Args:
            thread_id: Which thread; if not given, any of the tenant.
            tags: It has all of these.
            before_timestamp: It is older. Naive times are UTC.
            after_timestamp: It is as old or younger.
            with_state_matching: Scalars of the state, exactly: ``{"status": "completed"}``, or of
                ``CheckpointConfig.search_paths``: ``{"plan.stage": 2}``.
            metadata: Its metadata contains these; of sealed checkpoints, scalars at the top.
            include_failed: It may be a failed one.
            branch: It lies in the history of this branch.
            namespace: Which part of the thread.

        Raises:
            InvalidInputError: Something is asked for that is not searchable.
            CheckpointKeyError: Nothing was found, and no key opens the last checkpoint of the
                thread: what is sealed is not found by another key.
        """
        if branch is not None:
            if thread_id is None:
                raise InvalidInputError(
                    "A branch is one of a thread.", hint="Name the thread too: pass thread_id."
                )
            check_place(thread_id, namespace, branch)
        check_namespace(namespace)
        where = {
            "thread_id": thread_id,
            "namespace": namespace,
            "branch": branch and str(branch),
        }
        pattern = await self._reader.pattern(tags, with_state_matching, metadata)
        found = await self._engine.find(
            **where,
            failed=None if include_failed else False,
            created_before=moment(before_timestamp, "before_timestamp"),
            created_after=moment(after_timestamp, "after_timestamp"),
            page_size=1,
            **pattern,
        )
        checkpoints = await self._reader.checkpoints(found)
        if not checkpoints and any(pattern.values()) and thread_id is not None:
            await self._reader.check_key(where)
        return checkpoints[0] if checkpoints else None

    async def get(
        self,
        checkpoint_id: UUID | str,
        *,
        thread_id: str | None = None,
        namespace: str = "",
        include_state: bool = False,
    ) -> Checkpoint:
        """One checkpoint.

        Raises:
            NotFoundError: There is no such checkpoint.
            InvalidInputError: Several threads have it, for one is a copy; name the thread.
        """
        found = await self._reader.one(checkpoint_id, thread_id, namespace, states=include_state)
        return (await self._reader.checkpoints(found))[0]

    # -- going back ------------------------------------------------------------------------------

    async def restore(
        self,
        checkpoint_id: UUID | str,
        *,
        validate_schema: bool = False,
        model: type[BaseModel] | None = None,
        thread_id: str | None = None,
        namespace: str = "",
    ) -> Any:
        """The state of a checkpoint.

        Args:
            checkpoint_id: Which.
            validate_schema: Check it against the JSON Schema of the model that it was saved from,
                and against ``model``.
            model: Make an object of this pydantic model of it.
            thread_id: Of which thread, where a copy has the same checkpoints.
            namespace: Of which part of it.

        Raises:
            NotFoundError: There is no such checkpoint.
            CorruptCheckpointError: What is stored is damaged or forged.
            CheckpointKeyError: No key of the ring opens it.
            StateMismatchError: It does not fit its model; ``paths`` says where.
        """
        found = await self._reader.one(
            checkpoint_id, thread_id, namespace, details=False, states=True
        )
        known = (await self._engine.states(found))[found.checkpoints[0].id]
        return await self._reader.state(
            found.checkpoints[0], known.plain, model=model, validate=validate_schema
        )

    async def recover(
        self,
        thread_id: str,
        policy: RecoveryPolicy = RecoveryPolicy.LATEST,
        *,
        tags: Sequence[str] = (),
        branch: UUID | str | None = None,
        namespace: str = "",
    ) -> Checkpoint:
        """The checkpoint to go on from, with its state.

        Args:
            thread_id: Which thread.
            policy: Which checkpoint of it.
            tags: Those of LAST_TAGGED, and of no other policy; none is any.
            branch: Only of this branch, and of what it goes back to.
            namespace: Which part of the thread.

        Raises:
            InvalidInputError: There is no such policy, or it looks at no tags.
            NotFoundError: The policy finds none.
            CorruptCheckpointError: What is stored is damaged; LAST_READABLE goes further back.
        """
        check_place(thread_id, namespace, branch)
        return await self._reader.recover(policy, tags, thread_id, namespace, branch)

    async def replay(
        self,
        from_checkpoint: UUID | str,
        to_checkpoint: UUID | str,
        *,
        thread_id: str | None = None,
        namespace: str = "",
    ) -> AsyncIterator[Any]:
        """The states from one checkpoint to a later one, both included, in order.

        Raises:
            NotFoundError: One of them does not exist, or the first is not in the history of the
                second.
        """
        async for state in self._reader.replay(
            from_checkpoint, to_checkpoint, thread_id, namespace
        ):
            yield state

    # -- branches --------------------------------------------------------------------------------

    async def create_branch(
        self,
        from_checkpoint: UUID | str,
        branch_name: str,
        metadata: Mapping[str, Any] | None = None,
        *,
        thread_id: str | None = None,
        namespace: str = "",
    ) -> UUID:
        """Begin a branch at any checkpoint, and return its id. Nothing is copied.

        Raises:
            NotFoundError: There is no such checkpoint.
            ConflictError: The thread has a branch of that name, or the checkpoint is sealed and
                there is no key to seal the metadata with.
        """
        return await self._branches.create(
            from_checkpoint, branch_name, metadata, thread_id, namespace
        )

    async def list_branches(self, thread_id: str, *, namespace: str = "") -> list[Branch]:
        """The branches of a thread, oldest first; none where there is no such thread."""
        check_place(thread_id, namespace)
        return await self._branches.all_of(thread_id, namespace)

    async def compare(
        self,
        checkpoint_a: UUID | str,
        checkpoint_b: UUID | str,
        include_details: bool = True,  # noqa: FBT001, FBT002 - as documented
        *,
        thread_id: str | None = None,
        namespace: str = "",
    ) -> Difference:
        """What is different in the second of two checkpoints, of any threads.

        Args:
            checkpoint_a: The one before.
            checkpoint_b: The one after.
            include_details: With each change, and not only how many there are.
            thread_id: Of which thread, where a copy has the same checkpoints.
            namespace: Of which part of it.

        Raises:
            NotFoundError: One of them does not exist.
        """
        return await self._reader.compare(
            checkpoint_a, checkpoint_b, thread_id, namespace, include_details=include_details
        )

    # -- threads ---------------------------------------------------------------------------------

    async def list_threads(
        self, *, user_id: str | None = None, limit: int = 100, after: str | None = None
    ) -> list[Thread]:
        """The threads of the tenant, by name.

        Args:
            user_id: Only those of this user.
            limit: How many, 1 to 1,000.
            after: Only those whose name comes later.
        """
        whole_number(limit, "limit", 1, _PAGE)
        if after is not None:
            check_name(after, "after")
        return await self._threads.page(user_id=user_id, limit=limit, after=after)

    async def get_thread(self, thread_id: str) -> Thread:
        """One thread, and what its checkpoints come to.

        Raises:
            NotFoundError: There is no such thread.
        """
        return await self._threads.one(thread_id)

    async def delete_thread(self, thread_id: str) -> int:
        """Delete a thread with everything in it, and return how many checkpoints that were."""
        deleted = await self._threads.delete(thread_id)
        self._nodes.forget_thread(thread_id)
        return deleted

    async def copy_thread(self, thread_id: str, new_thread_id: str) -> int:
        """Copy a thread, with all of its namespaces, and return how many checkpoints it has.

        The copies keep their ids, so from then on `restore` needs the thread too. Namespaces are
        copied one after the other: if one fails, those before it are deleted again, so that the
        call may be repeated. Only if the database cannot be reached for that, or somebody has saved
        to them meanwhile, they stay; then `delete_thread` the new name first.

        Raises:
            NotFoundError: There is no such thread.
            ConflictError: There is a thread of the new name already.
            ContentTooLargeError: It is sealed, and larger than one call may carry: about 190 MB
                in a namespace.
        """
        return await self._threads.copy(thread_id, new_thread_id)

    async def prune(self, thread_id: str | None = None, *, dry_run: bool = False) -> Pruned:
        """Apply the retention of the configuration to a thread, or to all of the tenant.

        What stays is stored anew where what it was a delta against goes, in the same transaction.

        Args:
            thread_id: Only this thread.
            dry_run: Tell what would go, and change nothing.

        Raises:
            CheckpointError: Threads could not be read, and which; all others are done.
            ConflictError: Threads were changed by others all the time; all others are done.
        """
        return await self._threads.prune(thread_id, dry_run=dry_run)

    async def rotate_keys(self, thread_id: str | None = None, *, seal_plain: bool = False) -> int:
        """Seal a thread, or all of the tenant, with the first key of the ring.

        Old keys must stay in the ring until this is done; it may be repeated at any time.

        Args:
            thread_id: Only this thread.
            seal_plain: What was saved before there was a key, too.

        Returns:
            How many checkpoints were sealed anew.

        Raises:
            CheckpointError: Threads could not be read, and which; all others are done.
            ConflictError: Threads were changed by others all the time; all others are done.
        """
        return await self._threads.rotate(thread_id, seal_plain=seal_plain)
