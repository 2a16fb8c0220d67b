"""The name of a tenant's schema is one, whatever the tenant is called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.multitenancy._names import tenant_schema
from haive.core.persistence.schema import check_schema_name

_BASES = st.from_regex(r"[a-z_][a-z0-9_]{0,54}", fullmatch=True).filter(
    lambda name: not name.startswith("pg_")
)
_SLUGS = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True)


@given(base=_BASES, tenant=st.text() | _SLUGS)
def test_it_is_a_schema_name_for_any_tenant(base, tenant):
    assert check_schema_name(tenant_schema(base, tenant)) == tenant_schema(base, tenant)


@given(names=st.lists(st.tuples(_BASES, _SLUGS), min_size=2, max_size=30, unique=True))
def test_no_two_tenants_share_it(names):
    assert len({tenant_schema(*name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("haive", "a-b"), ("haive", "a_b")),
        (("haive", "x" * 62 + "a"), ("haive", "x" * 62 + "b")),
        (("haive_t_a", "b"), ("haive", "a_t_b")),
        (("a" * 54 + "x", "b"), ("a" * 54 + "y", "b")),
    ],
)
def test_names_that_are_alike_stay_apart(one, other):
    assert tenant_schema(*one) != tenant_schema(*other)


def test_it_shows_whose_it_is():
    assert tenant_schema("haive", "org-123").startswith("haive_t_org_123_")


def test_a_base_that_is_no_schema_is_refused():
    with pytest.raises(InvalidInputError):
        tenant_schema('haive"; drop schema haive; --', "a")
