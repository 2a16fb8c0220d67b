"""What is declared, as one script."""

from __future__ import annotations

import re

import pytest

from haive.core.persistence import _declared


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select 1; select 2", ["select 1", "select 2"]),
        ("-- one; two\nselect 1 - 1;\n", ["select 1 - 1"]),
        ("comment on table t is 'a; -- it''s';", ["comment on table t is 'a; -- it''s'"]),
        (
            """create policy "theirs; tenant's" on t;""",
            ["""create policy "theirs; tenant's" on t"""],
        ),
        (
            "do $$ begin; end; $$; do $a$ $$ ; $$ $a$",
            ["do $$ begin; end; $$", "do $a$ $$ ; $$ $a$"],
        ),
        (";;", []),
    ],
)
def test_statements_end_where_postgres_ends_them(sql, expected):
    assert _declared.statements(sql) == expected


def test_each_object_is_made_once_and_no_statement_looks_for_a_function():
    found = _declared.statements(_declared.script())
    made = [
        re.match(r"create (?:or replace )?(?:function|table|domain) (\S+?)\s*\(", s) for s in found
    ]
    names = [match[1] for match in made if match]
    assert len(names) == len(set(names)) > 150
    assert not [
        s for s in found if re.match(r"(?:alter|comment on|drop) function|grant execute on f", s)
    ]
