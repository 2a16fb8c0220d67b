"""What docs/realtime.md shows for web pages, run by the real supabase-js."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

_PAGE = Path(__file__).parents[2] / "docs" / "realtime.md"


_COUNTING = """
let asked = 0
const schema = supabase.schema.bind(supabase)
supabase.schema = (name) => { asked++; return schema(name) }
"""
_HINTS = """
const before = asked
await Promise.all(Array.from({ length: 50 }, read))
show({ asked: asked - before })
"""

# A tab that slept for longer than events are kept, or a failover.
_EXPIRED = """
reading = reading.then(() => { after = '00000000/3:3:' })
await read()
await read()
"""


def _example() -> str:
    (code,) = re.findall(r"```js\n(.*?)```", _PAGE.read_text(), re.DOTALL)
    return code


async def test_the_example_reads_once_for_many_hints(other, tenant, supabase_js, eventually):
    user = f"page-{tenant}"
    await other.set_member(user, "member")
    page = await supabase_js(user)
    page.tell("run", code=_COUNTING + _example() + _HINTS)
    await eventually(lambda: page.has_said(ran=True))
    (asked,) = (said["shown"]["asked"] for said in page.said if "shown" in said)
    assert asked <= 2  # for the hints, and once the topic is joined


async def test_the_example_shows_each_event_once(other, tenant, supabase_js, eventually) -> None:
    user = f"page-{tenant}"
    await other.set_member(user, "member")
    page = await supabase_js(user)
    page.tell("run", code=_example() + _EXPIRED)
    await eventually(lambda: page.has_said(ran=True))
    assert not [said for said in page.said if "reported" in said]
    assert len([said for said in page.said if "loaded" in said]) == 2  # at first, and then anew
    # At once, so that hints come while it reads.
    made = await asyncio.gather(
        *(other.create_conversation("agent", user_id=user) for _ in range(50))
    )

    def shown():
        return [said["shown"]["conversation_id"] for said in page.said if "shown" in said]

    await eventually(lambda: set(shown()) == {str(conversation.id) for conversation in made})
    await asyncio.sleep(0.3)
    assert len(shown()) == len(made)
