"""Who may do what: every persona by every object by every verb, as the database answers."""

from __future__ import annotations

import json
import re
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

_EXPECTED = """
| object | verb | anon | signed in | elsewhere | reader | member | admin | owner | service_role | haive_client | no tenant |
|---|---|---|---|---|---|---|---|---|---|---|---|
| tenants | select | no | none | theirs | tenant | tenant | tenant | tenant | all | tenant | none |
| tenants | insert, update, delete | no | no | no | no | no | no | no | no | no | no |
| members | select | no | none | own | own | own | tenant | tenant | all | tenant | none |
| members | insert, update, delete | no | no | no | no | no | no | no | no | no | no |
| conversations | select | no | none | none | part | part | tenant | tenant | all | tenant | none |
| conversations | insert, update, delete | no | no | no | no | no | no | no | no | no | no |
| messages | select | no | none | none | part | part | tenant | tenant | all | tenant | none |
| messages | insert, update, delete | no | no | no | no | no | no | no | no | no | no |
| sessions | select | no | none | none | part | part | tenant | tenant | all | tenant | none |
| sessions | insert, update, delete | no | no | no | no | no | no | no | no | no | no |
| session_segments | select | no | none | none | part | part | tenant | tenant | all | tenant | none |
| session_segments | insert, update, delete | no | no | no | no | no | no | no | no | no | no |
| session_merges | select | no | none | none | part | part | tenant | tenant | all | tenant | none |
| session_merges | insert, update, delete | no | no | no | no | no | no | no | no | no | no |
| events | select | no | no | no | no | no | no | no | all | tenant | none |
| events | insert, update, delete | no | no | no | no | no | no | no | no | no | no |
| threads | select | no | none | none | own | own | tenant | tenant | all | tenant | none |
| threads | insert, update, delete | no | no | no | no | no | no | no | no | no | no |
| branches | select | no | none | none | own | own | tenant | tenant | all | tenant | none |
| branches | insert, update, delete | no | no | no | no | no | no | no | no | no | no |
| checkpoints | select | no | none | none | own | own | tenant | tenant | all | tenant | none |
| checkpoints | insert, update, delete | no | no | no | no | no | no | no | no | no | no |
| checkpoint_writes | select | no | none | none | own | own | tenant | tenant | all | tenant | none |
| checkpoint_writes | insert, update, delete | no | no | no | no | no | no | no | no | no | no |
| checkpoint_schemas | select | no | none | theirs | tenant | tenant | tenant | tenant | all | tenant | none |
| checkpoint_schemas | insert, update, delete | no | no | no | no | no | no | no | no | no | no |
| audit_log | select | no | no | no | no | no | no | no | all | tenant | none |
| audit_log | insert, update, delete | no | no | no | no | no | no | no | no | no | no |
| invitations | select | no | no | no | no | no | no | no | no | no | no |
| invitations | insert, update, delete | no | no | no | no | no | no | no | no | no | no |
| erasures | select | no | no | no | no | no | no | no | no | no | no |
| erasures | insert, update, delete | no | no | no | no | no | no | no | no | no | no |
| create_conversations | call | no | none | none | none | own | tenant | tenant | tenant | tenant | none |
| get_conversation | call | no | none | none | part | part | tenant | tenant | tenant | tenant | none |
| add_messages | call | no | none | none | none | part | tenant | tenant | tenant | tenant | none |
| get_messages | call | no | none | none | part | part | tenant | tenant | tenant | tenant | none |
| find_messages | call | no | none | none | part | part | tenant | tenant | tenant | tenant | none |
| query_conversations | call | no | none | none | part | part | tenant | tenant | tenant | tenant | none |
| read_events | call | no | none | none | part | part | tenant | tenant | tenant | tenant | none |
| update_conversation | call | no | none | none | none | part | tenant | tenant | tenant | tenant | none |
| delete_conversation | call | no | none | none | none | own | tenant | tenant | tenant | tenant | none |
| create_session | call | no | none | none | none | own | tenant | tenant | tenant | tenant | none |
| get_session | call | no | none | none | part | part | tenant | tenant | tenant | tenant | none |
| list_sessions | call | no | none | none | part | part | tenant | tenant | tenant | tenant | none |
| session_messages | call | no | none | none | part | part | tenant | tenant | tenant | tenant | none |
| add_session_messages | call | no | none | none | none | part | tenant | tenant | tenant | tenant | none |
| update_session | call | no | none | none | none | part | tenant | tenant | tenant | tenant | none |
| update_session_state | call | no | none | none | none | part | tenant | tenant | tenant | tenant | none |
| continue_session | call | no | none | none | none | part | tenant | tenant | tenant | tenant | none |
| read_merge | call | no | none | none | none | part | tenant | tenant | tenant | tenant | none |
| merge_sessions | call | no | none | none | none | part | tenant | tenant | tenant | tenant | none |
| undo_merge | call | no | none | none | none | part | tenant | tenant | tenant | tenant | none |
| list_merges | call | no | none | none | part | part | tenant | tenant | tenant | tenant | none |
| set_participant | call | no | none | none | none | own | tenant | tenant | tenant | tenant | none |
| hide_message | call | no | none | none | none | own | tenant | tenant | tenant | tenant | none |
| expire_sessions | call | no | none | none | none | none | tenant | tenant | tenant | tenant | none |
| session_family | call | no | none | none | part | part | tenant | tenant | tenant | tenant | none |
| set_member | call | no | none | none | none | none | tenant | tenant | tenant | tenant | none |
| list_members | call | no | none | none | own | own | tenant | tenant | tenant | tenant | none |
| create_invitation | call | no | none | none | none | none | tenant | tenant | tenant | tenant | none |
| list_invitations | call | no | none | none | none | none | tenant | tenant | tenant | tenant | none |
| revoke_invitation | call | no | none | none | none | none | tenant | tenant | tenant | tenant | none |
| accept_invitation | call | no | all | tenant | theirs | theirs | theirs | theirs | none | none | none |
| apply_retention | call | no | none | none | none | none | tenant | tenant | tenant | tenant | none |
| erase_user | call | no | none | none | none | none | tenant | tenant | tenant | tenant | none |
| export_user | call | no | none | none | own | own | tenant | tenant | tenant | tenant | none |
| save_checkpoint | call | no | none | none | none | own | tenant | tenant | tenant | tenant | none |
| find_checkpoints | call | no | none | none | own | own | tenant | tenant | tenant | tenant | none |
| put_checkpoint_writes | call | no | none | none | none | own | tenant | tenant | tenant | tenant | none |
| list_checkpoint_writes | call | no | none | none | own | own | tenant | tenant | tenant | tenant | none |
| create_branch | call | no | none | none | none | own | tenant | tenant | tenant | tenant | none |
| list_branches | call | no | none | none | own | own | tenant | tenant | tenant | tenant | none |
| list_threads | call | no | none | none | own | own | tenant | tenant | tenant | tenant | none |
| annotate_checkpoint | call | no | none | none | none | own | tenant | tenant | tenant | tenant | none |
| rewrite_checkpoints | call | no | none | none | none | own | tenant | tenant | tenant | tenant | none |
| copy_thread | call | no | none | none | none | own | tenant | tenant | tenant | tenant | none |
| delete_thread | call | no | none | none | none | own | tenant | tenant | tenant | tenant | none |
| get_checkpoint_schema | call | no | none | none | tenant | tenant | tenant | tenant | tenant | tenant | none |
| put_memories | call | no | none | none | none | own | tenant | tenant | tenant | tenant | none |
| get_memories | call | no | none | none | own | own | tenant | tenant | tenant | tenant | none |
| find_memories | call | no | none | none | own | own | tenant | tenant | tenant | tenant | none |
| count_memories | call | no | none | none | own | own | tenant | tenant | tenant | tenant | none |
| search_memories | call | no | none | none | own | own | tenant | tenant | tenant | tenant | none |
| memory_tokens | call | no | none | none | own | own | tenant | tenant | tenant | tenant | none |
| delete_memories | call | no | none | none | none | own | tenant | tenant | tenant | tenant | none |
| memory_stats | call | no | none | none | none | none | tenant | tenant | tenant | tenant | none |
| open_memory_collection | call | no | no | no | no | no | no | no | all | all | all |
| plan_memory_indexes | call | no | no | no | no | no | no | no | all | all | all |
| measure_memory_recall | call | no | no | no | no | no | no | no | all | all | all |
| index_memory_items | call | no | no | no | no | no | no | no | all | all | all |
| put_memory_items | call | no | none | none | none | own | tenant | tenant | tenant | tenant | none |
| get_memory_items | call | no | none | none | own | own | tenant | tenant | tenant | tenant | none |
| search_memory_items | call | no | none | none | own | own | tenant | tenant | tenant | tenant | none |
| list_memory_namespaces | call | no | none | none | own | own | tenant | tenant | tenant | tenant | none |
| expire_memory_items | call | no | none | none | none | own | tenant | tenant | tenant | tenant | none |
| create_tenant | call | no | no | no | no | no | no | no | all | all | all |
| get_tenant | call | no | no | no | no | no | no | no | all | all | all |
| list_tenants | call | no | no | no | no | no | no | no | all | all | all |
| update_tenant | call | no | no | no | no | no | no | no | all | all | all |
| purge_tenant | call | no | no | no | no | no | no | no | all | all | all |
| audit_page | call | no | none | none | none | none | tenant | tenant | tenant | tenant | none |
| audit_head | call | no | none | none | none | none | tenant | tenant | tenant | tenant | none |
| verify_audit | call | no | none | none | none | none | tenant | tenant | tenant | tenant | none |
| list_tenant_keys | call | no | no | no | no | no | no | no | all | all | all |
| put_tenant_key | call | no | no | no | no | no | no | no | all | all | all |
| drop_tenant_key | call | no | no | no | no | no | no | no | all | all | all |
| destroy_tenant_keys | call | no | no | no | no | no | no | no | all | all | all |
| find_stale_messages | call | no | no | no | no | no | no | no | tenant | tenant | none |
| find_stale_conversations | call | no | no | no | no | no | no | no | tenant | tenant | none |
| find_stale_checkpoint_schemas | call | no | no | no | no | no | no | no | tenant | tenant | none |
| reseal_messages | call | no | no | no | no | no | no | no | tenant | tenant | none |
| reseal_conversations | call | no | no | no | no | no | no | no | tenant | tenant | none |
| reseal_checkpoint_schemas | call | no | no | no | no | no | no | no | tenant | tenant | none |
| count_sealed | call | no | no | no | no | no | no | no | tenant | tenant | none |
| tenant_usage | call | no | none | none | none | none | tenant | tenant | all | all | all |
| reconcile_usage | call | no | no | no | no | no | no | no | all | all | all |
| tenant_analytics | call | no | no | no | no | no | no | no | all | all | all |
| current_tenant | call | no | none | none | tenant | tenant | tenant | tenant | tenant | tenant | none |
| current_actor | call | no | yes | yes | yes | yes | yes | yes | yes | yes | yes |
| error_catalogue | call | no | yes | yes | yes | yes | yes | yes | yes | yes | yes |
| row_security | call | no | yes | yes | yes | yes | yes | yes | yes | yes | yes |
| schema_version | call | no | yes | yes | yes | yes | yes | yes | yes | yes | yes |
""".strip()  # noqa: E501 - a table

_SCOPES = {
    frozenset(): "none",
    frozenset({"own"}): "own",
    frozenset({"own", "shared"}): "part",
    frozenset({"own", "shared", "other"}): "tenant",
    frozenset({"own", "shared", "other", "foreign"}): "all",
    frozenset({"foreign"}): "theirs",
}
_READING = '"members read what they take part in, administrators all"'
_EVERYTHING = '{"op": "and", "parts": []}'
# A condition that is no longer within the one of the caller's own.
_BEYOND = """
create or replace function haive_private.memory_condition(
  p_filter jsonb, p_depth int default 0, p_exact boolean default false
) returns text language sql set search_path = '' as $$ select 'true or true' $$
"""
_OWN = '"members read their own, administrators all"'


def _tenant_of(target):
    return "blue" if target == "foreign" else "red"


def _member_of(target, persona):
    """The member that a target stands for."""
    own = persona.sub or "member"
    other = "owner" if persona.sub == "admin" else "admin"
    return {"own": own, "shared": "somebody", "other": other, "foreign": "boss"}[target]


_DENIED = asyncpg.InsufficientPrivilegeError

# What a caller gets who is refused by us: no such user, not allowed, no such row.
_REFUSALS = {"PT401", "PT403", "PT404"}


@asynccontextmanager
async def _undone(connection):
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()


class Probe:
    """Tries one verb on one object for every target, and undoes it."""

    def __init__(self, connection, persona, targets):
        self._connection = connection
        self._persona = persona
        self._targets = targets

    async def measure(self, name, verb):
        """Return the cell of the matrix as it is."""
        try:
            if verb == "call":
                return await self._call(name)
            if verb == "select":
                return await self._select(name)
            await self._write(name, verb)
        except _DENIED:
            return "no"
        return f"may {verb}"

    async def _select(self, name):
        key = {
            "conversations": "id::text", "tenants": "tenant_id", "members": "user_id",
            "sessions": "id::text", "session_segments": "session_id::text",
            "session_merges": "session_id::text",
            "threads": "thread_key::text", "branches": "thread_key::text",
            "checkpoints": "id::text", "checkpoint_writes": "checkpoint_id::text",
            "checkpoint_schemas": "encode(hash, 'hex')::uuid::text", "audit_log": "tenant_id",
            "invitations": "id::text", "erasures": "subject_hash",
        }  # fmt: skip
        rows = await self._as_persona(
            "fetch", f"select distinct {key.get(name, 'conversation_id::text')} from haive.{name}"
        )
        found = {row[0] for row in rows}
        targets = {target: str(value) for target, value in self._targets.items()}
        if name == "members":
            targets = {target: _member_of(target, self._persona) for target in targets}
        elif name in {"tenants", "audit_log"}:
            targets = dict.fromkeys(("own", "shared", "other"), "red") | {"foreign": "blue"}
        return _scope(target for target, value in targets.items() if value in found)

    async def _write(self, name, verb):
        statement = {
            "insert": f"insert into haive.{name} (tenant_id) values ('red')",
            "update": f"update haive.{name} set tenant_id = tenant_id",
            "delete": f"delete from haive.{name}",
        }
        await self._as_persona("execute", statement[verb])

    async def _call(self, name):
        attempt = getattr(self, f"_{name}", None)
        if attempt is None:
            await self._as_persona("fetch", f"select haive.{name}()")
            return "yes"
        reached = []
        for target in self._targets:
            try:
                if await attempt(target):
                    reached.append(target)
            except asyncpg.PostgresError as error:
                if error.sqlstate not in _REFUSALS:
                    raise
        return _scope(reached)

    async def _as_persona(self, how, statement, *arguments, look=None):
        async with _undone(self._connection):
            before = look and await self._connection.fetch(look)
            async with self._connection.transaction():
                await self._persona.enter(self._connection)
                answer = await getattr(self._connection, how)(statement, *arguments)
                await self._connection.execute("reset role")
            return before != await self._connection.fetch(look) if look else answer

    async def _get_conversation(self, target):
        query = "select haive.get_conversation($1, 10)"
        return await self._as_persona("fetchval", query, self._targets[target])

    async def _get_messages(self, target):
        answer = await self._as_persona(
            "fetchval", "select haive.get_messages($1)", self._targets[target]
        )
        return json.loads(answer)

    async def _find_messages(self, target):
        answer = await self._as_persona(
            "fetchval", "select haive.find_messages(array[$1::uuid])", self._targets[target]
        )
        return json.loads(answer)

    async def _query_conversations(self, target):
        answer = await self._as_persona("fetchval", "select haive.query_conversations()")
        found = {row["id"] for row in json.loads(answer)["conversations"]}
        return str(self._targets[target]) in found

    async def _read_events(self, target):
        channel = f"conversation:{self._targets[target]}"
        answer = await self._as_persona(
            "fetchval", "select haive.read_events($1, '0', watch => 'notify')", channel
        )
        everything = await self._as_persona(
            "fetchval", "select haive.read_events('conversations', '0', 5000)"
        )
        found = json.loads(answer)["events"]
        seen = {event["conversation_id"] for event in json.loads(everything)["events"]}
        # What there is of one conversation is there among all of them too, and nothing else.
        assert bool(found) == (str(self._targets[target]) in seen)
        return found

    async def _add_messages(self, target):
        message = {
            "conversation_id": str(self._targets[target]),
            "role": "user",
            "content": "more",
        }
        return await self._as_persona(
            "fetchval", "select haive.add_messages($1)", json.dumps([message])
        )

    async def _update_conversation(self, target):
        query = """select haive.update_conversation($1, '{"title": "changed"}')"""
        return await self._as_persona("fetchval", query, self._targets[target])

    async def _delete_conversation(self, target):
        query = "select haive.delete_conversation($1)"
        return await self._as_persona("fetchval", query, self._targets[target])

    async def _create_conversations(self, target):
        mine = self._persona.sub or "anyone"
        document = {
            "own": {"user_id": mine},
            "shared": {"user_id": "somebody", "participants": [mine]},
            "other": {"user_id": "somebody"},
            "foreign": {"user_id": mine, "tenant_id": "blue"},
        }[target]
        documents = json.dumps([{"id": str(uuid4()), "agent_id": "agent", **document}])
        tenant = "blue" if target == "foreign" else "red"
        return await self._as_persona(
            *("fetchval", "select haive.create_conversations($1)", documents),
            look=f"select id from haive.conversations where tenant_id = '{tenant}' order by id",
        )

    async def _set_member(self, target):
        tenant = "blue" if target == "foreign" else "red"
        return await self._as_persona(
            *("fetchval", "select haive.set_member($1, 'reader')", f"new {target}"),
            look=f"select user_id from haive.members where tenant_id = '{tenant}' order by 1",
        )

    # -- sessions: all conversations are, each with a merge, of the target's id --------------------

    def _second(self, target):
        """Another session, for what takes two; one that all may use who may use the first."""
        return self._targets["shared" if target == "own" else "own"]

    async def _create_session(self, target):
        mine = self._persona.sub or "anyone"
        document = {
            "own": {"user_id": mine},
            "shared": {"user_id": "somebody", "participants": [mine], "writers": [mine]},
            "other": {"user_id": "somebody"},
            "foreign": {"user_id": mine, "tenant_id": "blue"},
        }[target]
        session = json.dumps({"id": str(uuid4()), "agent_id": "agent", **document})
        return await self._as_persona(
            *("fetchval", "select haive.create_session($1)", session),
            look="select id from haive.sessions where tenant_id = "
            f"'{_tenant_of(target)}' order by id",
        )

    async def _get_session(self, target):
        query = "select haive.get_session($1)"
        return await self._as_persona("fetchval", query, self._targets[target])

    async def _list_sessions(self, target):
        answer = await self._as_persona("fetchval", "select haive.list_sessions()")
        found = {row["id"] for row in json.loads(answer)["sessions"]}
        return str(self._targets[target]) in found

    async def _session_family(self, target):
        query = "select haive.session_family($1)"
        return json.loads(await self._as_persona("fetchval", query, self._targets[target]))

    async def _session_messages(self, target):
        query = "select haive.session_messages($1)"
        return json.loads(await self._as_persona("fetchval", query, self._targets[target]))

    async def _add_session_messages(self, target):
        messages = json.dumps([{"role": "user", "content": "more"}])
        query = "select haive.add_session_messages($1, $2)"
        return await self._as_persona("fetchval", query, self._targets[target], messages)

    async def _update_session(self, target):
        query = """select haive.update_session($1, '{"status": "closed"}')"""
        return await self._as_persona("fetchval", query, self._targets[target])

    async def _update_session_state(self, target):
        query = """select haive.update_session_state($1, '{"state": {"a": 1}}')"""
        return await self._as_persona("fetchval", query, self._targets[target])

    async def _continue_session(self, target):
        query = "select haive.continue_session($1)"
        return await self._as_persona("fetchval", query, self._targets[target])

    async def _read_merge(self, target):
        query = "select haive.read_merge($1, $2)"
        pair = self._targets[target], self._second(target)
        return await self._as_persona("fetchval", query, *pair)

    async def _merge_sessions(self, target):
        plan = {
            "strategy": "append", "conflict_resolution": "primary_wins", "segments": [1, 1],
            "counts": [1, 1], "entries": [],
        }  # fmt: skip
        query = "select haive.merge_sessions($1, $2, $3)"
        pair = self._targets[target], self._second(target)
        return await self._as_persona("fetchval", query, *pair, json.dumps(plan))

    async def _undo_merge(self, target):
        key = self._targets[target]
        return await self._as_persona("fetchval", "select haive.undo_merge($1, $1)", key)

    async def _list_merges(self, target):
        query = "select haive.list_merges($1)"
        return json.loads(await self._as_persona("fetchval", query, self._targets[target]))

    async def _set_participant(self, target):
        query = "select haive.set_participant($1, 'new', '{read}')"
        return await self._as_persona("fetchval", query, self._targets[target])

    async def _hide_message(self, target):
        key = self._targets[target]
        return await self._as_persona("fetchval", "select haive.hide_message($1, $1)", key)

    async def _expire_sessions(self, target):
        tenant = _tenant_of(target)
        async with _undone(self._connection):
            await self._connection.execute(
                "update haive.sessions set ttl = 1, active_at = now() - interval '1 day'"
            )
            return await self._as_persona(
                *("fetchval", "select haive.expire_sessions()"),
                look=f"select status from haive.sessions where tenant_id = '{tenant}' order by id",
            )

    # -- tenants -----------------------------------------------------------------------------------

    async def _create_tenant(self, target):
        return await self._as_persona(
            *("fetchval", "select haive.create_tenant($1)", f"new-{target}"),
            look="select tenant_id from haive.tenants order by 1",
        )

    async def _get_tenant(self, target):
        query = "select haive.get_tenant($1)"
        return await self._as_persona("fetchval", query, _tenant_of(target))

    async def _list_tenants(self, target):
        answer = await self._as_persona("fetchval", "select haive.list_tenants()")
        return _tenant_of(target) in {row["tenant_id"] for row in json.loads(answer)}

    async def _update_tenant(self, target):
        query = """select haive.update_tenant($1, '{"name": "Changed"}')"""
        return await self._as_persona("fetchval", query, _tenant_of(target))

    async def _purge_tenant(self, target):
        tenant = _tenant_of(target)
        async with _undone(self._connection):
            await self._connection.execute(
                "update haive.tenants set status = 'deleted' where tenant_id = $1", tenant
            )
            return await self._as_persona(
                *("fetchval", "select haive.purge_tenant($1)", tenant),
                look="select tenant_id from haive.tenants order by 1",
            )

    async def _audit_page(self, target):
        answer = await self._as_persona("fetchval", "select haive.audit_page()")
        return self._targets[target].hex in answer.replace("-", "")

    async def _audit_head(self, target):
        answer = json.loads(await self._as_persona("fetchval", "select haive.audit_head()"))
        return answer["tenant"] == _tenant_of(target) and answer["seq"]

    async def _verify_audit(self, target):
        answer = json.loads(await self._as_persona("fetchval", "select haive.verify_audit()"))
        return answer["tenant"] == _tenant_of(target) and answer["checked"]

    # -- members and data subjects -----------------------------------------------------------------

    async def _list_members(self, target):
        answer = await self._as_persona("fetchval", "select haive.list_members()")
        found = {row["user_id"] for row in json.loads(answer)}
        return _member_of(target, self._persona) in found

    async def _create_invitation(self, target):
        tenant = _tenant_of(target)
        return await self._as_persona(
            *("fetchval", "select haive.create_invitation()"),
            look=f"select id from haive.invitations where tenant_id = '{tenant}' order by id",
        )

    async def _list_invitations(self, target):
        answer = await self._as_persona("fetchval", "select haive.list_invitations()")
        return str(self._targets[target]) in {row["id"] for row in json.loads(answer)}

    async def _revoke_invitation(self, target):
        query = "select haive.revoke_invitation($1)"
        return await self._as_persona("fetchval", query, self._targets[target])

    async def _accept_invitation(self, target):
        query = "select haive.accept_invitation($1, $2)"
        arguments = f"token {target}", _tenant_of(target)
        try:
            return await self._as_persona("fetchval", query, *arguments)
        except asyncpg.PostgresError as error:
            if error.sqlstate != "PT409":  # members of the tenant already
                raise
            return False

    async def _apply_retention(self, target):
        tenant = _tenant_of(target)
        async with _undone(self._connection):
            await self._connection.execute(
                """update haive.tenants set settings = '{"data_retention_days": 1}';
                update haive.conversations set last_message_at = now() - interval '9 days'"""
            )
            return await self._as_persona(
                *("fetchval", "select haive.apply_retention()"),
                look=f"select id from haive.conversations where tenant_id = '{tenant}' order by id",
            )

    async def _erase_user(self, target):
        tenant = _tenant_of(target)
        return await self._as_persona(
            *("fetchval", "select haive.erase_user($1)", f"new {target}"),
            look=f"select subject_hash from haive.erasures where tenant_id = '{tenant}' order by 1",
        )

    async def _export_user(self, target):
        user = _member_of(target, self._persona)
        query = "select haive.export_user($1, 'memberships')"
        return json.loads(await self._as_persona("fetchval", query, user))["rows"]

    async def _tenant_usage(self, target):
        query = "select haive.tenant_usage($1)"
        return await self._as_persona("fetchval", query, _tenant_of(target))

    async def _reconcile_usage(self, target):
        async with _undone(self._connection):
            await self._connection.execute("update haive.tenants set metered = true")
            query = "select haive.reconcile_usage($1)"
            return await self._as_persona("fetchval", query, _tenant_of(target))

    async def _tenant_analytics(self, target):
        answer = await self._as_persona("fetchval", "select haive.tenant_analytics()")
        return _tenant_of(target) in {row["tenant_id"] for row in json.loads(answer)}

    # -- memories: each target has one, of its id -------------------------------------------------

    async def _put_memories(self, target):
        mine = self._persona.sub or "anyone"
        memory = {
            "own": {"metadata": {"user_id": mine}},
            "shared": {"metadata": {"user_id": "somebody", "writer": mine}},
            "other": {"metadata": {"user_id": "somebody"}},
            "foreign": {"metadata": {"user_id": mine}, "tenant_id": "blue"},
        }[target]
        memories = json.dumps([{"id": str(uuid4()), **memory}])
        return await self._as_persona(
            *("fetchval", "select haive.put_memories('notes', $1)", memories),
            look=f"select id from vecs.notes where tenant_id = '{_tenant_of(target)}' order by id",
        )

    async def _get_memories(self, target):
        return await self._listed("get_memories('notes', array[$1])", target)

    async def _find_memories(self, target):
        memories = f"find_memories('notes', '{_EVERYTHING}'::jsonb)"
        return await self._listed(f"{memories} where $1::text is not null", target)

    async def _listed(self, call, target):
        key = str(self._targets[target])
        answer = await self._as_persona("fetchval", f"select haive.{call}", key)
        return key in {memory["id"] for memory in json.loads(answer)}

    async def _search_memories(self, target):
        query = json.dumps({"text": "note", "vector": "[1,0]", "limit": 10, "filter": None})
        answer = await self._as_persona(
            "fetchval", "select haive.search_memories('notes', $1)", query
        )
        key = str(self._targets[target])
        return key in {memory["id"] for memory in json.loads(answer)}

    async def _count_memories(self, target):
        same = {"op": "eq", "path": ["target"], "value": str(self._targets[target])}
        query = "select haive.count_memories('notes', $1)"
        return await self._as_persona("fetchval", query, json.dumps(same))

    async def _memory_tokens(self, target):
        key = str(self._targets[target])
        query = "select haive.memory_tokens('notes', array[$1])"
        return json.loads(await self._as_persona("fetchval", query, key))

    async def _delete_memories(self, target):
        key = str(self._targets[target])
        query = "select haive.delete_memories('notes', array[$1])"
        return json.loads(await self._as_persona("fetchval", query, key))

    async def _memory_stats(self, target):
        answer = await self._as_persona("fetchval", "select haive.memory_stats('notes')")
        memories = json.loads(answer)["memories"]
        assert memories in {0, 1, 3}  # of no tenant, of blue, of red
        return memories == (1 if target == "foreign" else 3)

    async def _open_memory_collection(self, target):
        settings = json.dumps({"name": "notes", "model": "m", "dimensions": 2})
        query = "select haive.open_memory_collection($1)"
        return await self._as_persona("fetchval", query, settings)

    async def _plan_memory_indexes(self, target):
        return await self._as_persona("fetchval", "select haive.plan_memory_indexes('notes')")

    async def _measure_memory_recall(self, target):
        return await self._as_persona("fetchval", "select haive.measure_memory_recall('notes')")

    # -- items: each memory is one, in a namespace of its id ---------------------------------------

    async def _index_memory_items(self, target):
        await self._as_persona("fetchval", "select haive.index_memory_items('notes')")
        return True

    async def _put_memory_items(self, target):
        mine = self._persona.sub or "anyone"
        whose = mine if target in {"own", "foreign"} else "somebody"
        item = {"id": str(uuid4()), "namespace": ["n"], "key": "k", "value": {}, "user_id": whose}
        return await self._as_persona(
            *("fetchval", "select haive.put_memory_items('notes', $1)", json.dumps([item])),
            look=f"select id from vecs.notes where tenant_id = '{_tenant_of(target)}' order by id",
        )

    async def _get_memory_items(self, target):
        return await self._listed("get_memory_items('notes', array[$1], array[true])", target)

    async def _search_memory_items(self, target):
        key = str(self._targets[target])
        found = []
        for query in ({}, {"text": "note"}, {"vector": "[1,0]"}):
            search = {"namespace": [key], "limit": 10, "user_id": self._whose(target), **query}
            answer = await self._as_persona(
                "fetchval", "select haive.search_memory_items('notes', $1)", json.dumps([search])
            )
            found.append([item["id"] for item in json.loads(answer)[0]])
        # Where the three ways do not agree, it is taken for reached, which is odd for all.
        return key in found[0] if found[0] == found[1] == found[2] else True

    async def _list_memory_namespaces(self, target):
        listing = {"limit": 10, "user_id": self._whose(target)}
        answer = await self._as_persona(
            "fetchval", "select haive.list_memory_namespaces('notes', $1)", json.dumps([listing])
        )
        return [str(self._targets[target])] in json.loads(answer)[0]

    async def _expire_memory_items(self, target):
        key = str(self._targets[target])
        over = """'{"expires_at": "2020-01-01T00:00:00.000000Z"}'"""
        async with _undone(self._connection):
            await self._connection.execute(
                f"update vecs.notes set metadata = metadata || {over} where id = $1", key
            )
            return await self._as_persona("fetchval", "select haive.expire_memory_items('notes')")

    def _whose(self, target):
        owners = {"own": self._persona.sub, "foreign": "boss"}
        return owners.get(target, "somebody")

    # -- threads: each with one checkpoint, of the target's id -------------------------------------

    async def _save_checkpoint(self, target):
        key = self._targets[target]
        query = (
            "select haive.save_checkpoint(thread_id => $1, id => $2, payload => '', size => 0,"
            " parent_id => $3)"
        )
        return await self._as_persona(
            *("fetchval", query, f"thread {target}", uuid4(), key),
            look=f"select id from haive.checkpoints where thread_key = '{key}' order by seq",
        )

    async def _find_checkpoints(self, target):
        query = "select haive.find_checkpoints(checkpoint_id => $1, states => true)"
        answer = await self._as_persona("fetchval", query, self._targets[target])
        return json.loads(answer)["checkpoints"]

    async def _put_checkpoint_writes(self, target):
        key = self._targets[target]
        write = {"idx": 1, "channel": "c", "size": 0, "codec": 0, "payload": ""}
        query = "select haive.put_checkpoint_writes($1, $2, $2, $3)"
        return await self._as_persona(
            *("fetchval", query, f"thread {target}", key, json.dumps([write])),
            look=f"select idx from haive.checkpoint_writes where thread_key = '{key}' order by 1",
        )

    async def _create_branch(self, target):
        query = "select haive.create_branch($1, 'b')"
        return await self._as_persona("fetchval", query, self._targets[target])

    async def _list_checkpoint_writes(self, target):
        query = "select haive.list_checkpoint_writes($1)"
        return json.loads(await self._as_persona("fetchval", query, f"thread {target}"))

    async def _list_branches(self, target):
        query = "select haive.list_branches($1)"
        return json.loads(await self._as_persona("fetchval", query, f"thread {target}"))

    async def _list_threads(self, target):
        answer = await self._as_persona("fetchval", "select haive.list_threads()")
        return f"thread {target}" in {row["thread_id"] for row in json.loads(answer)}

    async def _annotate_checkpoint(self, target):
        query = "select haive.annotate_checkpoint($1, failed => true)"
        return await self._as_persona("fetchval", query, self._targets[target])

    async def _rewrite_checkpoints(self, target):
        query = "select haive.rewrite_checkpoints($1)"
        return await self._as_persona("fetchval", query, f"thread {target}")

    async def _copy_thread(self, target):
        query = "select haive.copy_thread($1, 'copy')"
        return await self._as_persona("fetchval", query, f"thread {target}")

    async def _delete_thread(self, target):
        query = "select haive.delete_thread($1)"
        return await self._as_persona("fetchval", query, f"thread {target}")

    async def _get_checkpoint_schema(self, target):
        query = "select haive.get_checkpoint_schema($1)"
        return await self._as_persona("fetchval", query, self._targets[target].bytes)

    # -- keys --------------------------------------------------------------------------------------

    async def _list_tenant_keys(self, target):
        query = "select haive.list_tenant_keys($1)"
        return json.loads(await self._as_persona("fetchval", query, _tenant_of(target)))

    async def _put_tenant_key(self, target):
        query = "select haive.put_tenant_key('0000000a', 'w', 'kek', 'next', $1)"
        return await self._as_persona("fetchval", query, _tenant_of(target))

    async def _drop_tenant_key(self, target):
        query = "select haive.drop_tenant_key('00000002', $1)"
        return await self._as_persona("fetchval", query, _tenant_of(target))

    async def _destroy_tenant_keys(self, target):
        query = "select haive.destroy_tenant_keys($1)"
        return await self._as_persona("fetchval", query, _tenant_of(target))

    async def _find_stale_messages(self, target):
        answer = await self._as_persona("fetchval", "select haive.find_stale_messages('00000001')")
        return str(self._targets[target]) in {row["id"] for row in json.loads(answer)}

    async def _find_stale_conversations(self, target):
        query = "select haive.find_stale_conversations('00000001')"
        answer = await self._as_persona("fetchval", query)
        return str(self._targets[target]) in {row["id"] for row in json.loads(answer)}

    async def _find_stale_checkpoint_schemas(self, target):
        query = "select haive.find_stale_checkpoint_schemas('00000001')"
        answer = await self._as_persona("fetchval", query)
        return self._targets[target].hex in {row["hash"] for row in json.loads(answer)}

    async def _reseal_messages(self, target):
        key = str(self._targets[target])
        row = {"conversation_id": key, "id": key, "seq": 1, "sealed": "", "sealed_with": "0" * 8}
        query = "select haive.reseal_messages($1)"
        return await self._as_persona("fetchval", query, json.dumps([row]))

    async def _reseal_conversations(self, target):
        key = self._targets[target]
        updated_at = await self._connection.fetchval(
            "select updated_at from haive.conversations where id = $1", key
        )
        row = {
            "id": str(key), "was_updated_at": updated_at.isoformat(),
            "sealed": "", "sealed_with": "00000001",
        }  # fmt: skip
        query = "select haive.reseal_conversations($1)"
        return await self._as_persona("fetchval", query, json.dumps([row]))

    async def _reseal_checkpoint_schemas(self, target):
        row = {"hash": self._targets[target].hex, "payload": "", "key_id": "00000001"}
        query = "select haive.reseal_checkpoint_schemas($1)"
        return await self._as_persona("fetchval", query, json.dumps([row]))

    async def _count_sealed(self, target):
        answer = await self._as_persona("fetchval", "select haive.count_sealed()")
        count = {row["table"]: row["rows"] for row in json.loads(answer)}.get("messages", 0)
        return count == 3 and target != "foreign"

    async def _current_tenant(self, target):
        answer = await self._as_persona("fetchval", "select haive.current_tenant()")
        return json.loads(answer)["tenant"] == ("blue" if target == "foreign" else "red")


def _scope(reached):
    reached = frozenset(reached)
    return _SCOPES.get(reached, f"odd: {', '.join(sorted(reached))}")


def _rows(table):
    """Return (object, verb) → (cell of each persona), and the personas."""
    header, _, *lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()
    ]
    cells = {
        (name, verb): dict(zip(header[2:], row, strict=True))
        for name, verbs, *row in lines
        for verb in verbs.split(", ")
    }
    return cells, header[2:]


_MATRIX, _NAMES = _rows(_EXPECTED)


async def _measured(connect, dsn, settled, personas, targets, of):
    matrix = {(name, verb): {} for name, verb in _MATRIX if of in {None, name}}
    connection = await connect(dsn=dsn)
    for name in _NAMES:
        async with _undone(connection):
            await settled(connection, personas[name].sub)
            probe = Probe(connection, personas[name], targets)
            for (object_name, verb), row in matrix.items():
                row[name] = await probe.measure(object_name, verb)
    return matrix


@pytest.fixture
def measured(database, connect, settled, personas, targets):
    async def measure(of=None):
        return await _measured(connect, database, settled, personas, targets, of)

    return measure


def _differences(found):
    return {
        (*key, name): f"{cell}, expected {_MATRIX[key][name]}"
        for key, row in found.items()
        for name, cell in row.items()
        if cell != _MATRIX[key][name]
    }


async def test_the_database_answers_as_the_matrix_says(measured):
    assert _differences(await measured()) == {}


@pytest.mark.parametrize(
    ("sabotage", "notices"),
    [
        ("alter table haive.conversations disable row level security", "conversations"),
        ("alter table haive.messages disable row level security", "messages"),
        ("alter table haive.sessions disable row level security", "sessions"),
        ("alter table haive.session_segments disable row level security", "session_segments"),
        ("alter table haive.session_merges disable row level security", "session_merges"),
        ("alter table haive.members disable row level security", "members"),
        ("alter table haive.tenants disable row level security", "tenants"),
        ("alter table haive.events disable row level security", "events"),
        (f"alter policy {_READING} on haive.conversations using (false)", "get_conversation"),
        ("create policy o on haive.messages for select to authenticated using (true)", "messages"),
        ("alter table haive.audit_log disable row level security", "audit_log"),
        ("grant select on haive.audit_log to authenticated", "audit_log"),
        ("alter table haive.threads disable row level security", "threads"),
        ("alter table haive.branches disable row level security", "branches"),
        ("alter table haive.checkpoints disable row level security", "checkpoints"),
        ("alter table haive.checkpoint_writes disable row level security", "checkpoint_writes"),
        ("alter table haive.checkpoint_schemas disable row level security", "checkpoint_schemas"),
        (f"alter policy {_OWN} on haive.threads using (false)", "list_branches"),
        ("grant update on haive.checkpoints to service_role", "checkpoints"),
        ("grant select on haive.invitations to service_role", "invitations"),
        ("grant select on haive.erasures to haive_client", "erasures"),
        ("grant select on haive.events to authenticated", "events"),
        ("grant delete on haive.messages to service_role", "messages"),
        (_BEYOND, "find_memories"),
        (
            """grant usage on schema haive to anon;
            grant execute on function haive.error_catalogue() to anon""",
            "error_catalogue",
        ),
        (
            "alter function haive.get_conversation(uuid, int, text) security definer",
            "get_conversation",
        ),
    ],
)
async def test_the_matrix_notices_sabotage(measured, postgres, sabotage, notices):
    assert _differences(await measured(notices)) == {}
    await postgres.execute(sabotage)
    assert _differences(await measured(notices)) != {}


async def test_no_table_and_no_function_is_missing_from_the_matrix(postgres):
    objects = await postgres.fetch(
        "select relname as name from pg_class"
        " where relnamespace = 'haive'::regnamespace and relkind in ('r', 'p', 'v', 'm', 'f')"
        " union all select proname from pg_proc where pronamespace = 'haive'::regnamespace"
    )
    assert sorted(row["name"] for row in objects) == sorted({name for name, _ in _MATRIX})


async def test_an_object_that_nobody_thought_of_is_noticed(postgres):
    await postgres.execute("create view haive.forgotten as select * from haive.messages")
    with pytest.raises(AssertionError, match="forgotten"):
        await test_no_table_and_no_function_is_missing_from_the_matrix(postgres)


def test_every_table_is_in_the_matrix_with_every_verb():
    verbs = {}
    for name, verb in _MATRIX:
        verbs.setdefault(name, set()).add(verb)
    assert all(v in ({"call"}, {"select", "insert", "update", "delete"}) for v in verbs.values())


def test_policies_readme_shows_this_matrix():
    readme = (Path(__file__).parents[2] / "policies" / "README.md").read_text()
    assert _EXPECTED in readme, "Copy the table at the top of this test into policies/README.md."
    policies = set()
    for file in (Path(__file__).parents[2] / "policies").glob("*.sql"):
        policies |= set(re.findall(r'create policy "([^"]+)"', file.read_text()))
    assert {policy for policy in policies if policy not in readme} == set()
