"""What the system catalogue says about every object there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

_SCHEMAS = "('haive'::regnamespace, 'haive_private'::regnamespace)"
_ROOT = Path(__file__).parents[2]

# What callers run in the private schema; the rest is for the definer functions themselves.
_CALLED = {
    "accept_invitation",
    "annotate_checkpoint",
    "append_message",
    "append_messages",
    "audit_head",
    "audit_page",
    "audit_read",
    "apply_retention",
    "checkpoint_frames",
    "checkpoint_write_docs",
    "conversation_doc",
    "copy_thread",
    "create_branch",
    "create_conversations",
    "create_invitation",
    "delete_conversation",
    "delete_thread",
    "enter_tenant",
    "erase_user",
    "export_user",
    "list_invitations",
    "find_checkpoints",
    "get_conversation",
    "get_messages",
    "may_join",
    "message_docs",
    "message_columns",
    "conversation_columns",
    "find_conversation",
    "find_conversations",
    "latest_conversations",
    "message_range",
    "read_conversation",
    "read_conversations",
    "read_messages",
    "put_memories",
    "put_memory_items",
    "get_memory_items",
    "search_memory_items",
    "list_memory_namespaces",
    "expire_memory_items",
    "get_memories",
    "find_memories",
    "number_of_memories",
    "search_memories",
    "memory_tokens",
    "delete_memories",
    "memory_stats",
    "my_admin_tenants",
    "my_tenants",
    "put_checkpoint_writes",
    "read_events",
    "revoke_invitation",
    "query_conversations",
    "rewrite_checkpoints",
    "save_checkpoint",
    "set_member",
    "create_session",
    "get_session",
    "list_sessions",
    "session_messages",
    "update_session",
    "update_session_state",
    "continue_session",
    "read_merge",
    "merge_sessions",
    "undo_merge",
    "list_merges",
    "set_participant",
    "hide_message",
    "expire_sessions",
    "session_family",
    "moderates",
    "tenant_usage",
    "update_conversation",
    "verify_audit",
}
# Likewise, for those who run the platform: secret keys and direct connections.
_PLATFORM = {
    "index_memory_items",
    "measure_memory_recall",
    "open_memory_collection",
    "plan_memory_indexes",
    "create_tenant",
    "destroy_tenant_keys",
    "drop_tenant_key",
    "get_tenant",
    "list_tenant_keys",
    "list_tenants",
    "purge_tenant",
    "put_tenant_key",
    "reseal_checkpoint_schemas",
    "reseal_conversations",
    "reseal_messages",
    "reconcile_usage",
    "tenant_analytics",
    "update_tenant",
}
_INTERNAL = {
    "add_memory_words",
    "compare_memories",
    "count_loaded_memories",
    "count_memories",
    "behind_path",
    "drop_memories",
    "drop_stale_tokens",
    "drop_tenant_memories",
    "enter_collection",
    "few_memories",
    "fewest_to_walk",
    "first_labels",
    "gather_memory_words",
    "memories_of_user",
    "memory_bytes",
    "memory_collection_doc",
    "memory_condition",
    "memory_distance",
    "memory_doc",
    "memory_index",
    "item_part",
    "matches_namespace",
    "memory_index_name",
    "memory_item_doc",
    "memory_item_filter",
    "namespace_path",
    "rank_memories",
    "rank_memory_items",
    "refresh_memory_items",
    "time_text",
    "write_memories",
    "nearest_memories",
    "nested",
    "refuse_memories",
    "refuse_sealed_memories",
    "stored_memory_bytes",
    "unquote_memories",
    "vector_schema",
    "walk_memories",
    "weigh_words",
    "administer_tenant",
    "begin_conversations",
    "check_session_write",
    "check_session_change",
    "session_status_now",
    "refuse_closed_session",
    "enter_session",
    "act_for",
    "session_line",
    "session_doc",
    "common_root",
    "line_messages",
    "merge_doc",
    "merge_record",
    "message_places",
    "audit_entry",
    "audit_messages",
    "audit_row",
    "audit_rows",
    "chain_audit",
    "check_sealed",
    "check_tenant_settings",
    "cut_events",
    "enter_audit",
    "event_log",
    "event_rows",
    "hint_events",
    "insert_messages",
    "is_audited",
    "keep_watch",
    "may_watch",
    "open_branch",
    "open_thread",
    "refuse_audit_changes",
    "send_hint",
    "check_tenant_switches",
    "drop_conversations",
    "drop_threads",
    "enter_as_administrator",
    "invitation_doc",
    "keep_an_owner",
    "refuse_erased",
    "refuse_erased_owner",
    "refuse_erased_author",
    "refuse_erased_participants",
    "refuse_plain",
    "replay_messages",
    "reserve_messages",
    "sum_counts",
    "analytics_doc",
    "checkpoint_bytes",
    "merge_bytes",
    "conversation_bytes",
    "count_rows",
    "judge_use",
    "message_bytes",
    "meter",
    "meter_branches",
    "meter_checkpoint_schemas",
    "meter_checkpoint_writes",
    "meter_checkpoints",
    "meter_conversations",
    "meter_facts",
    "meter_merges",
    "meter_messages",
    "metered_use",
    "month_end",
    "rearm_warnings",
    "recount_tenant",
    "refuse_over_quota",
    "take_request",
    "tenant_doc",
    "turn_meter",
    "usage_doc",
}

_TABLES = f"pg_class where relnamespace in {_SCHEMAS} and relkind in ('r', 'p', 'v', 'm', 'f')"
_FUNCTIONS = f"pg_proc where pronamespace in {_SCHEMAS}"
_VIOLATIONS = {
    "every table has row level security": (
        f"select oid::regclass from {_TABLES} and not relrowsecurity"
    ),
    "every table has a policy": (
        f"select oid::regclass from {_TABLES}"
        " and not exists (select from pg_policy where polrelid = pg_class.oid)"
    ),
    "every policy names its roles": "select polname from pg_policy where polroles = '{0}'",
    "every function has an empty search_path": (
        f"select oid::regprocedure from {_FUNCTIONS}"
        """ and not coalesce(proconfig, '{}') @> array['search_path=""']"""
    ),
    "every definer function is private and haive_writer's": (
        f"select oid::regprocedure from {_FUNCTIONS} and prosecdef"
        " and (pronamespace <> 'haive_private'::regnamespace"
        " or proowner <> 'haive_writer'::regrole"
        # It does one thing, which Supabase lets none but the installer do.
        " and proname <> 'send_hint')"
    ),
    "haive_writer owns nothing else": (
        f"select oid::regprocedure from {_FUNCTIONS} and not prosecdef"
        " and proowner = 'haive_writer'::regrole"
        f" union all select oid::regclass::oid from {_TABLES}"
        " and relowner = 'haive_writer'::regrole"
    ),
    "anon, and so PUBLIC, executes nothing": (
        f"select oid::regprocedure from {_FUNCTIONS}"
        " and has_function_privilege('anon', oid, 'execute')"
    ),
    "anon, and so PUBLIC, has no table": (
        f"select oid::regclass from {_TABLES} and has_table_privilege("
        "'anon', oid, 'select, insert, update, delete, truncate, references, trigger')"
    ),
    "anon, and so PUBLIC, enters neither schema": (
        f"select oid::regnamespace from pg_namespace where oid in {_SCHEMAS}"
        " and has_schema_privilege('anon', oid, 'usage, create')"
    ),
    "nobody creates in our schemas but their owner": (
        "select rolname from pg_roles where not rolsuper and rolname <> 'postgres' and ("
        "has_schema_privilege(oid, 'haive', 'create')"
        " or has_schema_privilege(oid, 'haive_private', 'create'))"
    ),
    "no caller writes a table": (
        "select oid::regclass from pg_class cross join"
        " unnest(array['authenticated', 'service_role', 'haive_client']) as role"
        f" where relnamespace in {_SCHEMAS} and relkind in ('r', 'p')"
        " and (has_any_column_privilege(role, oid, 'insert, update')"
        " or has_table_privilege(role, oid, 'delete, truncate, trigger'))"
    ),
    "every table has a comment": (
        f"select oid::regclass from {_TABLES} and obj_description(oid, 'pg_class') is null"
    ),
    "every function has a comment": (
        f"select oid::regprocedure from {_FUNCTIONS} and obj_description(oid, 'pg_proc') is null"
    ),
    "every table's key begins with its tenant": (
        "select conrelid::regclass from pg_constraint join pg_attribute"
        " on attrelid = conrelid and attnum = conkey[1]"
        " where contype = 'p' and connamespace = 'haive'::regnamespace"
        " and attname <> 'tenant_id'"
    ),
    "every foreign key is one of our tables' keys, with the tenant": (
        "select conname from pg_constraint where contype = 'f'"
        f" and connamespace in {_SCHEMAS} and not exists ("
        "select from pg_attribute where attrelid = conrelid and attnum = any(conkey)"
        " and attname = 'tenant_id')"
    ),
}


@pytest.mark.parametrize("rule", _VIOLATIONS)
async def test_of_every_object_it_is_true_that(postgres, rule):
    assert await postgres.fetch(_VIOLATIONS[rule]) == []


@pytest.mark.parametrize(
    ("rule", "sabotage"),
    [
        (
            "every table has row level security",
            "alter table haive.events disable row level security",
        ),
        (
            "every table has a policy",
            "create table haive.bare (); alter table haive.bare enable row level security",
        ),
        ("every policy names its roles", "create policy p on haive.events using (true)"),
        (
            "every function has an empty search_path",
            "create function haive.f() returns int language sql as 'select 1'",
        ),
        (
            "every definer function is private and haive_writer's",
            "alter function haive.current_actor() security definer",
        ),
        (
            "anon, and so PUBLIC, executes nothing",
            "create function haive.f() returns int language sql as 'select 1'",
        ),
        ("anon, and so PUBLIC, has no table", "grant select on haive.tenants to public"),
        ("no caller writes a table", "grant update (title) on haive.conversations to service_role"),
        ("every table has a comment", "create table haive.bare ()"),
    ],
)
async def test_the_rules_notice_sabotage(postgres, rule, sabotage):
    await postgres.execute(sabotage)
    assert await postgres.fetch(_VIOLATIONS[rule]) != []


async def test_every_private_function_is_either_called_or_internal(postgres):
    for role in ("authenticated", "service_role", "haive_client"):
        rows = await postgres.fetch(
            "select proname, has_function_privilege($1, oid, 'execute') as may from pg_proc"
            " where pronamespace = 'haive_private'::regnamespace",
            role,
        )
        called = _CALLED if role == "authenticated" else _CALLED | _PLATFORM
        assert {row["proname"] for row in rows if row["may"]} == called
        assert {row["proname"] for row in rows if not row["may"]} == (
            _CALLED | _PLATFORM | _INTERNAL
        ) - called


async def test_every_index_says_which_query_it_serves(postgres):
    rows = await postgres.fetch(
        "select indexrelid::regclass::text as name from pg_index join pg_class on oid = indrelid"
        f" where relnamespace in {_SCHEMAS}"
        " and not exists (select from pg_constraint where conindid = indexrelid)"
    )
    sql = "\n".join(file.read_text() for file in (_ROOT / "sql").glob("*.sql"))
    served = set(re.findall(r"^-- Serves: .+\ncreate (?:unique )?index (\w+)", sql, re.MULTILINE))
    assert {row["name"].rpartition(".")[2] for row in rows} == served
