"""The catalogue of errors."""

from __future__ import annotations

import copy
import pickle

import asyncpg
import pytest

from haive.core.persistence import errors
from haive.core.persistence.errors import PersistenceError, database_error, error_class


def classes() -> list[type[PersistenceError]]:
    found = [PersistenceError]
    for cls in found:
        found += cls.__subclasses__()
    return found


async def test_the_catalogue_of_the_database_names_the_classes_of_the_sdk(
    postgres: asyncpg.Connection,
) -> None:
    rows = await postgres.fetch("select * from haive.error_catalogue()")
    assert {row["sqlstate"]: (row["error"], row["retryable"]) for row in rows} == {
        code: (cls.__name__, cls.retryable)
        for code, cls in errors._CLASSES.items()
        if code.startswith("PT")
    }
    assert all(row["sqlstate"] == f"PT{row['http_status']}" for row in rows)


async def test_functions_raise_only_what_the_catalogue_names(postgres: asyncpg.Connection) -> None:
    raised = await postgres.fetch(
        """
        select distinct m[1] as code
        from pg_proc as p
        join pg_namespace as n on n.oid = p.pronamespace
        cross join regexp_matches(p.prosrc, '''((?:PT|P0|[0-9]{2})[0-9A-Z]{3})''', 'g') as m
        where n.nspname in ('haive', 'haive_private') and p.proname <> 'error_catalogue'
        """
    )
    assert {row["code"] for row in raised} == {
        code for code in errors._CLASSES if code.startswith("PT")
    }


@pytest.mark.parametrize("cls", classes(), ids=lambda cls: cls.__name__)
def test_every_class_says_what_happened_and_is_in_the_tree(cls: type[PersistenceError]) -> None:
    assert str(cls()).endswith(".")
    assert cls.__name__ in (errors.__doc__ or "")


def test_codes_are_told_apart_whole_before_their_class() -> None:
    assert error_class("23505") is errors.ConflictError
    assert error_class("23514") is errors.InvalidInputError
    assert error_class("08006") is errors.ConnectionLostError
    assert error_class("XX000") is errors.DatabaseError
    assert error_class(None) is errors.DatabaseError
    assert "40001" not in errors._CLASSES


def test_only_our_own_messages_are_passed_on() -> None:
    secret = "Key (user_id)=(ada@example.org) already exists."
    assert "ada" not in str(database_error("23505", message=secret, hint=secret))
    ours = database_error("PT404", message="no conversation 1", hint="It was deleted.")
    assert str(ours) == "no conversation 1. It was deleted."
    assert (ours.sqlstate, ours.hint) == ("PT404", "It was deleted.")


def test_an_error_survives_copying_and_pickling() -> None:
    error = errors.NotFoundError("no conversation 1", hint="It was deleted.", sqlstate="PT404")
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (type(twin), str(twin), twin.sqlstate) == (type(error), str(error), "PT404")
