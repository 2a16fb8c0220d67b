"""Whether a restored state still fits its model."""

from __future__ import annotations

import json
from enum import Flag
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from haive.core.persistence.checkpointer._paths import child
from haive.core.persistence.checkpointer._view import view
from haive.core.persistence.errors import CorruptCheckpointError, StateMismatchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic_core import core_schema

# How `view` writes bytes: the one pattern that is checked.
_BASE64 = "base64:"

# What validators of whole classes are around, in the terms of pydantic's core.
_CLASSES = frozenset({"model", "model-fields", "dataclass", "dataclass-args", "typed-dict"})


class _OfView(GenerateJsonSchema):
    """The JSON Schema of what `view` makes of an object.

    That is the fields by their names, as they are held: no aliases, serializers or computed fields.
    What pydantic cannot tell of a value may be anything, so that each valid object fits.
    """

    def timedelta_schema(self, schema: core_schema.TimedeltaSchema) -> JsonSchemaValue:
        return {"type": "number"}

    def bytes_schema(self, schema: core_schema.BytesSchema) -> JsonSchemaValue:
        return {"type": "string", "pattern": f"^{_BASE64}"}

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        return {"type": "string"}

    def str_schema(self, schema: core_schema.StringSchema) -> JsonSchemaValue:
        # A pattern is one of Rust's, which Python may read otherwise or not at all.
        found = super().str_schema(schema)
        found.pop("pattern", None)
        return found

    def enum_schema(self, schema: core_schema.EnumSchema) -> JsonSchemaValue:
        if issubclass(schema["cls"], Flag):  # any combination of the members
            return {"type": "integer"}
        return {"enum": view(schema["members"])}

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        return {"enum": view(schema["expected"])}

    def json_schema(self, schema: core_schema.JsonSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"]) if "schema" in schema else {}

    def named_tuple_schema(self, schema: Any) -> JsonSchemaValue:
        return self._named(schema["fields"])

    def call_schema(self, schema: Any) -> JsonSchemaValue:
        # What a named tuple is to pydantic before 2.14.
        return self._named(schema["arguments_schema"]["arguments_schema"])

    def _named(self, parts: Iterable[Any]) -> JsonSchemaValue:
        found = {part["name"]: self.generate_inner(part["schema"]) for part in parts}
        return {"type": "object", "properties": found, "required": list(found)}

    def function_before_schema(
        self, schema: core_schema.BeforeValidatorFunctionSchema
    ) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def function_after_schema(
        self, schema: core_schema.AfterValidatorFunctionSchema
    ) -> JsonSchemaValue:
        return self._validated(schema["schema"])

    def function_wrap_schema(
        self, schema: core_schema.WrapValidatorFunctionSchema
    ) -> JsonSchemaValue:
        return self._validated(schema["schema"])

    def function_plain_schema(
        self, schema: core_schema.PlainValidatorFunctionSchema
    ) -> JsonSchemaValue:
        return {}

    def _validated(self, inner: core_schema.CoreSchema) -> JsonSchemaValue:
        """What comes out of a validator: of a model that model, of a value anything."""
        found = self.generate_inner(inner)
        return found if inner["type"] in _CLASSES else {}

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        # The tag may be what a function says: then a value can fit several.
        return {"anyOf": super().tagged_union_schema(schema)["oneOf"]}

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        found = super().model_schema(schema)
        if schema.get("root_model"):
            return {"type": "object", "properties": {"root": found}, "required": ["root"]}
        return found

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        # Pydantic does not validate a default: ``owner: str = None`` is common. The default itself
        # says nothing of what fits, and need not be JSON.
        found = self.generate_inner(schema["schema"])
        if "default" in schema and schema["default"] is None:
            return {"anyOf": [found, {"type": "null"}]}
        return found

    def render_warning_message(self, kind: str, detail: str) -> None:
        """Say nothing: a schema that is only checked against has no reader."""

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchemaValue:
        return {}


def schema_of(model: type[BaseModel]) -> bytes:
    """The JSON Schema of a model as `view` shows it, as the same text for the same schema."""
    schema = model.model_json_schema(by_alias=False, schema_generator=_OfView)
    return json.dumps(schema, sort_keys=True).encode()


def hash_of(schema: bytes) -> bytes:
    """What a schema is stored and found by."""
    return blake2b(schema, digest_size=16).digest()


def check(tree: object, schema: dict[str, Any]) -> None:
    """Validate a state, as JSON, against a schema.

    Raises:
        StateMismatchError: It does not fit; ``paths`` says where.
        CorruptCheckpointError: The schema is none.
    """
    # Imported where a state is validated: 40 ms that nobody else shall wait for.
    from jsonschema import Draft202012Validator  # noqa: PLC0415
    from jsonschema.validators import extend  # noqa: PLC0415
    from referencing import Registry  # noqa: PLC0415

    # A schema may be forged: patterns, which can take for ever, are left to the model itself,
    # and with an empty registry nothing is fetched that it refers to.
    try:
        checks = extend(Draft202012Validator, {"pattern": _prefixed, "patternProperties": _any})  # type: ignore[no-untyped-call]
        validator = checks(schema, registry=Registry())
        problems = {
            path_of(error.absolute_path): error.validator for error in validator.iter_errors(tree)
        }
    except Exception:  # noqa: BLE001 - jsonschema raises anything where a schema is none
        raise CorruptCheckpointError("The schema of the checkpoint is none.") from None
    if problems:
        raise mismatch(problems)


def _prefixed(_: object, pattern: str, text: object, __: object) -> Iterator[Exception]:
    """Check the one pattern of ours."""
    if pattern == f"^{_BASE64}" and isinstance(text, str) and not text.startswith(_BASE64):
        from jsonschema import ValidationError as Problem  # noqa: PLC0415

        yield Problem("no bytes")


def _any(*_: object) -> tuple[Exception, ...]:
    """Find nothing wrong."""
    return ()


def rebuilt(model: type[BaseModel], data: object) -> BaseModel:
    """Plain data as an object of a model.

    Raises:
        StateMismatchError: It does not fit; ``paths`` says where.
    """
    try:
        return model.model_validate(data, by_name=True)
    except ValidationError as error:
        raise mismatch(problems_of(error)) from None


def problems_of(error: ValidationError, steps: Iterable[str | int] = ()) -> dict[str, str]:
    """The rules that were broken, by the path to where; steps lead to what was validated."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return {path_of((*steps, *problem["loc"])): problem["type"] for problem in found}


def mismatch(problems: dict[str, str]) -> StateMismatchError:
    """An error that names paths and rules, and no values."""
    shown = "; ".join(f"{path} ({rule})" for path, rule in list(problems.items())[:10])
    return StateMismatchError(
        f"The state does not fit its model: {shown}.",
        paths=tuple(problems),
        hint="CheckpointConfig(upcaster=…) brings old states up to date.",
    )


def path_of(steps: Iterable[str | int]) -> str:
    """The path of some steps from the state."""
    path = "$"
    for step in steps:
        path = child(path, step)
    return path
