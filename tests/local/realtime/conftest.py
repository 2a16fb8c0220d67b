"""Rooms with members, and clients of the real supabase-py."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
import websockets
from supabase import AsyncClient, acreate_client

from haive.core.persistence.local import LocalStack

# What a migration of an application does, as the role that runs migrations.
SCHEMA = """
create table public.rt_members (room text, user_id uuid, primary key (room, user_id));
grant select on public.rt_members to authenticated;
create policy "members receive" on realtime.messages for select to authenticated
  using (exists (
    select from public.rt_members as m
    where m.user_id = (select auth.uid()) and m.room = (select realtime.topic())
  ));
create policy "members send" on realtime.messages for insert to authenticated
  with check (exists (
    select from public.rt_members as m
    where m.user_id = (select auth.uid()) and m.room = (select realtime.topic())
  ) and (select realtime.topic()) not like 'silent%');

create table public.rt_notes (
  id bigint generated always as identity primary key,
  room text not null,
  body text,
  amount numeric,
  details jsonb,
  secret text
);
alter table public.rt_notes enable row level security;
grant select (id, room, body, amount, details) on public.rt_notes to authenticated;
create policy "members read" on public.rt_notes for select to authenticated
  using (exists (
    select from public.rt_members as m
    where m.user_id = (select auth.uid()) and m.room = rt_notes.room
  ));
alter publication supabase_realtime add table public.rt_notes;

create function public.rt_tell() returns trigger language plpgsql set search_path = '' as $$
begin
  perform realtime.broadcast_changes(
    new.room, tg_op, tg_op, tg_table_name, tg_table_schema, new, old
  );
  return null;
end
$$;
create trigger rt_tell after insert on public.rt_notes
  for each row execute function public.rt_tell();
"""


@dataclass
class Heard:
    """A channel, and all that came of it."""

    channel: Any = None
    states: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    broadcasts: list[dict[str, Any]] = field(default_factory=list)
    changes: list[dict[str, Any]] = field(default_factory=list)
    system: list[Any] = field(default_factory=list)

    @property
    def events(self) -> list[str]:
        return [message["event"] for message in self.broadcasts]

    @property
    def kinds(self) -> list[str]:
        return [str(change["data"]["type"].value) for change in self.changes]


Join = Callable[..., Awaitable[Heard]]


@pytest.fixture(scope="session")
async def rooms(stack: LocalStack) -> None:
    connection = await asyncpg.connect(stack.database_url)
    await connection.execute(SCHEMA)
    await connection.close()


@pytest.fixture
async def database(rooms: None, stack: LocalStack) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(stack.database_url)
    yield connection
    await connection.close()


@pytest.fixture
def room() -> str:
    """A name that no other test uses."""
    return f"room-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def admit(database: asyncpg.Connection) -> Callable[[str], Awaitable[str]]:
    """Make a user that may be in a room: `await admit(room)`."""

    async def admit_one(room: str) -> str:
        user = str(uuid.uuid4())
        await database.execute("insert into public.rt_members values ($1, $2)", room, user)
        return user

    return admit_one


@pytest.fixture
async def member(admit: Callable[[str], Awaitable[str]], room: str) -> str:
    """A user that may be in the room."""
    return await admit(room)


@pytest.fixture
async def new_client(stack: LocalStack) -> AsyncIterator[Callable[..., Awaitable[AsyncClient]]]:
    """Make clients: of the publishable key, or of a user."""
    async with AsyncExitStack() as made:

        async def make(
            user: str | None = None,
            *,
            of: LocalStack = stack,
            key: str | None = None,
            **claims: Any,
        ) -> AsyncClient:
            client = await acreate_client(of.url, key or of.publishable_key)
            if user is not None:
                await client.realtime.set_auth(of.mint_user_token(user, **claims))
            made.push_async_callback(_close, client)
            return client

        yield make


async def _close(client: AsyncClient) -> None:
    with suppress(Exception):  # a test may have closed it, or its server
        await client.remove_all_channels()
    with suppress(Exception):
        await client.realtime.close()


@pytest.fixture
def join() -> Join:
    """Join a channel: `await join(client, "topic")`."""

    async def join_one(
        client: AsyncClient,
        topic: str,
        *,
        private: bool = True,
        hear_myself: bool = False,
        acknowledge: bool = False,
        presence_key: str = "",
        setup: Callable[[Any, Heard], None] | None = None,
    ) -> Heard:
        heard = Heard()
        channel = client.channel(
            topic,
            {
                "config": {
                    "private": private,
                    "broadcast": {"self": hear_myself, "ack": acknowledge},
                    "presence": {"key": presence_key, "enabled": bool(presence_key)},
                }
            },
        )
        heard.channel = channel
        channel.on_broadcast("*", heard.broadcasts.append)
        channel.on_system(heard.system.append)
        if setup is not None:
            setup(channel, heard)

        def note(state: Any, error: Exception | None) -> None:
            heard.states.append(state.value)
            if error is not None:
                heard.errors.append(str(error))

        await channel.subscribe(note)
        return heard

    return join_one


@pytest.fixture
def settled() -> Callable[[], Awaitable[None]]:
    """Wait long enough for what must not come to have come."""
    return lambda: asyncio.sleep(0.15)


@pytest.fixture
def connect(stack):
    """A bare WebSocket, for what no client library does."""

    @asynccontextmanager
    async def open_one(*, vsn="1.0.0", key=stack.publishable_key, **options):
        url = f"{stack.url.replace('http', 'ws')}/realtime/v1/websocket?apikey={key}&vsn={vsn}"
        async with websockets.connect(url, compression=None, **options) as websocket:
            yield websocket

    return open_one


@pytest.fixture
def joining() -> Callable[..., str]:
    """The frame that joins a channel: `joining("topic", postgres_changes=[…])`."""

    def frame(topic: str, ref: str = "1", **config: Any) -> str:
        return json.dumps(
            {
                "topic": f"realtime:{topic}",
                "event": "phx_join",
                "payload": {"config": config},
                "ref": ref,
            }
        )

    return frame
