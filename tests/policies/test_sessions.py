"""Who may do what in a session: every role in it by every operation, as the database answers."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg
import httpx
import pytest

SESSION = UUID("019bbbbb-0000-7000-8000-000000000001")
OTHER = UUID("019bbbbb-0000-7000-8000-000000000002")
MESSAGE = UUID("019bbbbb-0000-7000-8000-000000000003")
HIDDEN = UUID("019bbbbb-0000-7000-8000-000000000004")
CONVERSATION = UUID("019bbbbb-0000-7000-8000-000000000005")

# yes; no: not allowed (403); gone: as if there were no session (404); left out: no row of it.
_EXPECTED = """
| operation | owner | moderator | writer | reader | ex-participant | outsider |
|---|---|---|---|---|---|---|
| get_session | yes | yes | yes | yes | gone | gone |
| list_sessions | yes | yes | yes | yes | left out | left out |
| session_family | yes | yes | yes | yes | gone | gone |
| session_messages | yes | yes | yes | yes | gone | gone |
| session_messages, hidden ones | yes | yes | no | no | gone | gone |
| list_merges | yes | yes | yes | yes | gone | gone |
| branch it | yes | yes | yes | yes | gone | gone |
| add_session_messages | yes | yes | yes | no | gone | gone |
| update_session: touch | yes | yes | yes | no | gone | gone |
| update_session: close | yes | yes | yes | no | gone | gone |
| update_session_state | yes | yes | yes | no | gone | gone |
| continue_session | yes | yes | yes | no | gone | gone |
| read_merge, as primary | yes | yes | yes | no | gone | gone |
| read_merge, as secondary | yes | yes | yes | no | gone | gone |
| merge_sessions | yes | yes | yes | no | gone | gone |
| undo_merge | yes | yes | yes | no | gone | gone |
| set_participant: another | yes | yes | no | no | gone | gone |
| set_participant: more for oneself | yes | yes | no | no | gone | gone |
| set_participant: leave | no | yes | yes | yes | gone | gone |
| hide_message | yes | yes | no | no | gone | gone |
""".strip()

# By other ways in, with a user's own token: there is nobody to act for.
_EXPECTED_OTHERWISE = """
| operation | owner | moderator | writer | reader | ex-participant | outsider |
|---|---|---|---|---|---|---|
| add_messages | yes | yes | yes | no | gone | gone |
| append_message | yes | yes | yes | no | gone | gone |
| update_conversation: title | yes | yes | yes | no | gone | gone |
| update_conversation: participants | no | no | no | no | gone | gone |
| delete_conversation | yes | gone | gone | gone | gone | gone |
| get_conversation | yes | yes | yes | yes | gone | gone |
| get_messages | yes | yes | yes | yes | gone | gone |
| select conversations | yes | yes | yes | yes | left out | left out |
| select sessions | yes | yes | yes | yes | left out | left out |
| select session_segments | yes | yes | yes | yes | left out | left out |
| select session_merges | yes | yes | yes | yes | left out | left out |
| select messages | yes | yes | yes | yes | left out | left out |
| select messages, the hidden one | yes | yes | left out | left out | left out | left out |
| channel: hear | yes | yes | yes | yes | left out | left out |
| channel: send | left out | left out | left out | left out | left out | left out |
| channel: presence | left out | left out | left out | left out | left out | left out |
| conversation: hear | yes | yes | yes | yes | left out | left out |
| conversation: send | left out | left out | left out | left out | left out | left out |
| conversation: see who is there | left out | left out | left out | left out | left out | left out |
| conversation: be seen | left out | left out | left out | left out | left out | left out |
| room: hear | yes | yes | yes | yes | left out | left out |
| room: send | yes | yes | yes | left out | left out | left out |
| room: see who is there | yes | yes | yes | yes | left out | left out |
| room: be seen | yes | yes | yes | yes | left out | left out |
| a room that was left behind | left out | left out | left out | left out | left out | left out |
| the topic of another tenant | left out | left out | left out | left out | left out | left out |
""".strip()

_PLAN = {
    "strategy": "append", "conflict_resolution": "primary_wins", "segments": [1, 0],
    "counts": [2, 0], "entries": [],
}  # fmt: skip
_CALLS = {
    "get_session": "haive.get_session($1{})",
    "list_sessions": "haive.list_sessions(page_size => 1000{})",
    "session_family": "haive.session_family($1{})",
    "session_messages": "haive.session_messages($1{})",
    "session_messages, hidden ones": "haive.session_messages($1, hidden => true{})",
    "list_merges": "haive.list_merges($1{})",
    "add_session_messages": """haive.add_session_messages(
        $1, '[{{"role": "user", "content": "x"}}]'{})""",
    "update_session: touch": """haive.update_session($1, '{{"touch": true}}'{})""",
    "update_session: close": """haive.update_session($1, '{{"status": "closed"}}'{})""",
    "update_session_state": """haive.update_session_state($1, '{{"state": {{}}}}'{})""",
    "continue_session": "haive.continue_session($1{})",
    "read_merge, as primary": f"haive.read_merge($1, '{OTHER}'{{}})",
    "read_merge, as secondary": f"haive.read_merge('{OTHER}', $1{{}})",
    "merge_sessions": f"haive.merge_sessions($1, '{OTHER}', '"
    + json.dumps(_PLAN).replace("{", "{{").replace("}", "}}")
    + "'{})",
    "undo_merge": "haive.undo_merge($1, $1{})",
    "set_participant: another": "haive.set_participant($1, 'new', '{{read}}'{})",
    "set_participant: more for oneself": (
        "haive.set_participant($1, 'somebody', '{{read,write,moderate}}'{})"
    ),
    "set_participant: leave": "haive.set_participant($1, '@me'{})",
    "hide_message": f"haive.hide_message($1, '{MESSAGE}'{{}})",
}
_TOKEN_CALLS = {
    "branch it": """haive.create_session(jsonb_build_object('parent_id', $1::uuid, 'ttl', 60))""",
    "add_messages": """haive.add_messages(jsonb_build_array(jsonb_build_object(
        'conversation_id', $1::uuid, 'role', 'user', 'content', 'x')))""",
    "update_conversation: title": """haive.update_conversation($1, '{"title": "x"}')""",
    "update_conversation: participants": (
        """haive.update_conversation($1, '{"participants": ["@me"]}')"""
    ),
    "delete_conversation": "haive.delete_conversation($1)",
    "get_conversation": "haive.get_conversation($1)",
    "get_messages": "haive.get_messages($1)",
    "append_message": (
        "1 from haive_private.append_message(null, $1, gen_random_uuid(), 'user', 'x') as a"
        " where a.failure is null"
    ),
    "select conversations": "id from haive.conversations where id = $1",
    "select sessions": "id from haive.sessions where id = $1",
    "select session_segments": "number from haive.session_segments where session_id = $1",
    "select session_merges": "id from haive.session_merges where session_id = $1",
    "select messages": f"id from haive.messages where conversation_id = $1 and id = '{MESSAGE}'",
    "select messages, the hidden one": (
        f"id from haive.messages where conversation_id = $1 and id = '{HIDDEN}'"
    ),
}
# Topics are asked for by the policies on realtime.messages, through this function.
_JOINING = {
    "channel: hear": ("default:session", "", "broadcast", "false"),
    "channel: send": ("default:session", "", "broadcast", "true"),
    "channel: presence": ("default:session", "", "presence", "false"),
    "conversation: hear": ("default:conversation", "", "broadcast", "false"),
    "conversation: send": ("default:conversation", "", "broadcast", "true"),
    "conversation: see who is there": ("default:conversation", "", "presence", "false"),
    "conversation: be seen": ("default:conversation", "", "presence", "true"),
    "room: hear": ("default:session", ":0", "broadcast", "false"),
    "room: send": ("default:session", ":0", "broadcast", "true"),
    "room: see who is there": ("default:session", ":0", "presence", "false"),
    "room: be seen": ("default:session", ":0", "presence", "true"),
    "a room that was left behind": ("default:session", ":1", "broadcast", "false"),
    "the topic of another tenant": ("other:session", ":0", "broadcast", "false"),
}
_TOKEN_CALLS |= {
    name: f"1 where haive_private.may_join('haive:{kind}:{SESSION}{room}', '{extension}', {write})"
    for name, (kind, room, extension, write) in _JOINING.items()
}
_ROLES = ("owner", "moderator", "writer", "reader", "ex-participant", "outsider")
_ANSWERS = {"PT403": "no", "PT422": "no", "PT404": "gone"}


def _rows(table):
    header, _, *lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()
    ]
    return {name: dict(zip(header[1:], cells, strict=True)) for name, *cells in lines}


_MATRIX, _OTHERWISE = _rows(_EXPECTED), _rows(_EXPECTED_OTHERWISE)
_FILL = f"""
insert into haive.members (tenant_id, user_id, role)
select 'default', u, 'member' from unnest(array[{", ".join(f"'{r}'" for r in _ROLES)}]) as u;
insert into haive.conversations (tenant_id, id, agent_id, user_id, participants, is_session)
values
  ('default', '{SESSION}', 'a', 'owner', '{{moderator,writer,reader,somebody}}', true),
  ('default', '{OTHER}', 'a', 'owner',
    '{{moderator,writer,reader,ex-participant,outsider}}', true),
  ('default', '{CONVERSATION}', 'a', 'owner', '{{moderator,writer,reader,somebody}}', false);
insert into haive.sessions (tenant_id, id, segment, writers, moderators) values
  ('default', '{SESSION}', 1, '{{moderator,writer}}', '{{moderator}}'),
  ('default', '{OTHER}', 0, '{{moderator,writer,reader,ex-participant,outsider}}', null);
insert into haive.session_segments (
  tenant_id, session_id, number, base_segment, base_count, start_seq
)
values ('default', '{SESSION}', 1, 0, 0, 0);
insert into haive.session_merges (
  tenant_id, id, session_id, secondary_id, segment, before_segment, before_count,
  secondary_count, secondary_status, strategy, conflict_resolution, root_count
)
values (
  'default', '{SESSION}', '{SESSION}', '{OTHER}', 1, 0, 0, 0, 'open', 'append', 'primary_wins', 0
);
select haive_private.append_message('default', '{SESSION}', '{MESSAGE}', 'user', 'seen'),
  haive_private.append_message('default', '{SESSION}', '{HIDDEN}', 'user', 'hidden');
update haive.messages set hidden_at = now() where id = '{HIDDEN}';
"""


@pytest.fixture
async def connection(connect, database):
    connection = await connect(dsn=database)
    await connection.execute(_FILL)
    return connection


@asynccontextmanager
async def _undone(connection):
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()


async def _become(connection, user, *, acting):
    role = "service_role" if acting else "authenticated"
    claims = {"role": role} | ({} if acting else {"sub": user})
    await connection.execute(
        "select set_config('request.jwt.claims', $1, true)", json.dumps(claims)
    )
    await connection.execute(f"set local role {role}")


async def _answer(connection, user, name, *, acting):
    call = _TOKEN_CALLS.get(name)
    if call is None:
        call = _CALLS[name].format(", acting_user => '@me'" if acting else "")
    call = call.replace("@me", user)
    async with _undone(connection):
        await _become(connection, user, acting=acting)
        try:
            rows = await connection.fetch(f"select {call}", *[SESSION] * ("$1" in call))
        except asyncpg.PostgresError as error:
            return _ANSWERS[error.sqlstate]
    if name == "list_sessions":
        found = {row["id"] for row in json.loads(rows[0][0])["sessions"]}
        return "yes" if str(SESSION) in found else "left out"
    if name == "append_message":
        return "yes" if rows else "gone"
    return "yes" if rows else "left out"


async def _measured(connection, matrix, *, acting):
    return {
        name: {role: await _answer(connection, role, name, acting=acting) for role in _ROLES}
        for name in matrix
        if not (acting and name in _TOKEN_CALLS)
    }


def _differences(found, expected):
    return {
        (name, role): f"{cell}, expected {expected[name][role]}"
        for name, row in found.items()
        for role, cell in row.items()
        if cell != expected[name][role]
    }


@pytest.mark.parametrize("acting", [False, True], ids=["by their token", "by a service"])
async def test_the_database_answers_as_the_matrix_says(connection, acting):
    assert _differences(await _measured(connection, _MATRIX, acting=acting), _MATRIX) == {}


async def test_no_other_way_in_leads_past_the_permissions(connection):
    found = await _measured(connection, _OTHERWISE, acting=False)
    assert _differences(found, _OTHERWISE) == {}


_NO_WRITE_CHECK = """
create or replace function haive_private.check_session_write(
  p_tenant text, p_actor text, p_session_id uuid, p_owner text, p_last_seq bigint
) returns void language sql as ''
"""
_NO_CHANGE_CHECK = """
create or replace function haive_private.check_session_change(
  p_tenant text, p_actor text, p_session_id uuid, p_participants boolean
) returns void language sql as ''
"""
_HIDDEN_IS_SHOWN = """
drop policy "members read the messages of conversations they read" on haive.messages;
create policy o on haive.messages for select to authenticated using (true)
"""
_OPEN = "create policy o on haive.sessions for select to authenticated using (true)"


@pytest.mark.parametrize(
    ("sabotage", "notices"),
    [
        (_NO_WRITE_CHECK, "add_messages"),
        (_NO_CHANGE_CHECK, "update_conversation: participants"),
        (_HIDDEN_IS_SHOWN, "select messages, the hidden one"),
        (_OPEN, "select sessions"),
    ],
)
async def test_the_matrix_notices_sabotage(connection, sabotage, notices):
    await connection.execute(sabotage)
    found = await _measured(connection, _OTHERWISE, acting=False)
    assert notices in {name for name, _ in _differences(found, _OTHERWISE)}


async def test_nobody_acts_for_others_with_a_token(connection):
    async with _undone(connection):
        await _become(connection, "reader", acting=False)
        for name, call in _CALLS.items():
            with pytest.raises(asyncpg.PostgresError) as refused:
                async with connection.transaction():
                    await connection.fetch(
                        f"select {call.format(', acting_user => $$owner$$').replace('@me', 'x')}",
                        *[SESSION] * ("$1" in call),
                    )
            assert refused.value.sqlstate == "PT403", name


@pytest.mark.parametrize("acting", [False, True], ids=["by their token", "by a service"])
async def test_nobody_adds_to_a_plain_conversation_as_if_it_were_a_session(connection, acting):
    one = {"role": "user", "content": "x"}
    call = "select haive.add_session_messages($1, $2, acting_user => $3)"
    for user in (*_ROLES, None) if acting else _ROLES:
        for messages in ([one], [one, one]):
            async with _undone(connection):
                await _become(connection, user, acting=acting)
                with pytest.raises(asyncpg.PostgresError, match=r"no (session|conversation)") as no:
                    await connection.fetch(
                        call, CONVERSATION, json.dumps(messages), user if acting else None
                    )
            assert no.value.sqlstate == "PT404", user


async def test_a_removed_participant_is_cut_off_at_once(connection):
    async with _undone(connection):
        await _become(connection, "moderator", acting=False)
        await connection.fetch("select haive.set_participant($1, 'writer')", SESSION)
        await connection.execute("reset role")
        found = {
            name: await _answer(connection, "writer", name, acting=False)
            for name in (*_MATRIX, *_OTHERWISE)
        }
    gone = {name: row["ex-participant"] for name, row in (_MATRIX | _OTHERWISE).items()}
    assert found == gone


async def test_the_author_of_a_message_is_who_called(connection):
    query = "select author from haive.messages order by seq desc limit 1"
    for acting, call in (
        (False, ("haive.add_messages(jsonb_build_array(jsonb_build_object('conversation_id',"
         " $1::uuid, 'role', 'user', 'content', 'x')))")),
        (False, _CALLS["add_session_messages"].format("")),
        (True, _CALLS["add_session_messages"].format(", acting_user => 'writer'")),
    ):  # fmt: skip
        async with _undone(connection):
            await _become(connection, "writer", acting=acting)
            await connection.fetch(f"select {call}", SESSION)
            await connection.execute("reset role")
            assert await connection.fetchval(query) == "writer"


async def test_tables_are_read_through_the_api_and_never_written(stack):
    owner = await asyncpg.connect(stack.database_url)
    try:
        await owner.execute(
            "insert into haive.members (tenant_id, user_id, role)"
            " values ('default', 'rest-user', 'member') on conflict do nothing"
        )
        session = json.loads(
            await owner.fetchval(
                """select haive.create_session('{"agent_id": "a", "user_id": "rest-user"}')"""
            )
        )
    finally:
        await owner.close()
    headers = {
        "apikey": stack.publishable_key,
        "Authorization": f"Bearer {stack.mint_user_token('rest-user')}",
        "Accept-Profile": "haive",
        "Content-Profile": "haive",
    }
    async with httpx.AsyncClient(base_url=f"{stack.url}/rest/v1/", headers=headers) as api:
        embedded = await api.get(
            "conversations",
            params={"select": "id,sessions(status,ttl)", "id": f"eq.{session['id']}"},
        )
        assert embedded.json() == [
            {"id": session["id"], "sessions": {"status": "open", "ttl": None}}
        ]
        for table in ("sessions", "session_segments", "session_merges"):
            row = {"tenant_id": "default"}
            assert (await api.post(table, json=row)).status_code == 403
            assert (await api.patch(f"{table}?tenant_id=eq.default", json=row)).status_code == 403
            assert (await api.delete(f"{table}?tenant_id=eq.default")).status_code == 403
