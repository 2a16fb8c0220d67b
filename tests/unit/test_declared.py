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


def test_each_object_is_made_once_and_functions_are_found_by_names_that_are_rare():
    found = _declared.statements(_declared.script())
    made = [
        re.match(r"create (?:or replace )?(?:function|table|domain) (\S+?)\s*\(", s) for s in found
    ]
    names = [match[1] for match in made if match]
    assert len(names) == len(set(names)) > 150
    rare = {name for name in names if name.endswith(_declared.UNIQUE)}
    renamed = {match[1] for s in found if (match := re.match(r"alter function (\S+) rename to", s))}
    assert rare == renamed
    for statement in found:
        assert not re.match(r"(?:comment on|drop) function|grant execute on f", statement)
        assert not re.match(rf"alter function (?!\S+{_declared.UNIQUE} rename to )", statement)
        if re.match(r"create .*(?:trigger|policy)", statement):
            called = set(re.findall(r"haive\w*\.[\w:]+(?=\s*\()", statement))
            assert called <= rare
