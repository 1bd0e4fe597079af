"""Whether a response is JSON, and of the wanted shape."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import islice
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.data import RewardOutput, Sample
from flux_rewards.errors import ConfigError, FluxRewardsError, InputError, MissingDependencyError, brief
from flux_rewards.rewards.text.json_text import parse_json
from flux_rewards.rewards.text.parts import PARTS, part_of
from flux_rewards.validation import one_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["JSONFormat"]

_MAX_ERRORS = 5
_MAX_MESSAGE = 200


class JSONFormat(RewardFunction):
    r"""1.0 where the response is JSON, and valid under a JSON Schema where there is one; else 0.0.

    Args:
        schema: A JSON Schema (a mapping, or True or False), or the path of a file that holds one. None: any JSON will
            do.
        schema_in_reference: The schema is each sample's reference: a mapping, or its JSON text.
        part: What must be JSON, from its first character to its last: ``"response"``, ``"final"``, ``"answer"``,
            ``"boxed"``, ``"last_line"``, or ``"code_block"``: what the one fenced code block holds; see `ExactMatch`.
            What stands around the part is not judged.
        check_formats: ``format`` in the schema (``"date"``, ``"ipv4"``, ``"email"``) is a demand, not a comment. Those
            for which jsonschema needs packages that are not installed pass.
        **options: Of every reward; see `RewardFunction`.

    The draft is that of the schema's ``$schema``, 2020-12 without one. References to other schemas are resolved within
    the schema and in the published meta-schemas; nothing is fetched.

    Bounds: (0, 1); only these two values. An empty response scores 0.0. Metadata: ``errors``, up to five, such as
    ``"$.age: 'x' is not of type 'integer'"``.

    What is JSON: RFC 8259, without NaN, numbers beyond the range of a float, the same name twice in one object, more
    than 100 levels, and whole numbers of over 4,300 digits.

    Raises:
        ConfigError: `schema` is no valid schema, its file cannot be read, or both sources of a schema are given.
        InputError: The reference should be a schema, and is none.
        MissingDependencyError: There is a schema, and jsonschema is not installed.

    Does not repair JSON, and does not limit the time that a ``pattern`` in the schema takes. Source: JSON Schema
    2020-12, through jsonschema.

    Examples:
        >>> JSONFormat()(response=['{"a": 1}', '{"a": 1} So that is it.', "{'a': 1}"]).rewards
        array([1., 0., 0.])
        >>> person = JSONFormat({"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]})
        >>> person(response=['{"age": 7}', '{"age": "7"}'])[1].metadata
        {'errors': ["$.age: '7' is not of type 'integer'"]}
    """

    required_fields: Sequence[str] = ("response",)
    optional_fields = ()
    bounds = (0.0, 1.0)
    example_config = {"schema": {"type": "integer", "maximum": 3}, "part": "answer"}

    def __init__(
        self,
        schema: Mapping[str, Any] | bool | str | None = None,
        schema_in_reference: bool = False,
        part: str = "response",
        *,
        check_formats: bool = False,
        **options: Unpack[RewardOptions],
    ) -> None:
        super().__init__(**options)
        if schema is not None and not isinstance(schema, (Mapping, str, bool)):
            raise ConfigError(f"schema must be a mapping or a path, found {brief(schema)}", reward=self.name)
        if schema is not None and schema_in_reference:
            raise ConfigError("give either schema or schema_in_reference=True, not both", reward=self.name)
        self.schema = schema
        self.schema_in_reference = schema_in_reference
        self.part = one_of(part, "part", self.name, tuple(PARTS))
        self.check_formats = check_formats
        if schema_in_reference:
            self.required_fields = (*self.required_fields, "reference")

    @property
    def decided_by(self) -> Sequence[Any]:  # type: ignore[override]  # the content of the file
        """The schema behind a path."""
        return (self._own_schema,) if isinstance(self.schema, str) else ()

    def compute_reward(self, sample: Sample) -> RewardOutput:
        """1.0 or 0.0, and the errors."""
        validator = self._validator_of(sample)
        text = part_of(sample.response_text, self.part)
        if text is None:
            return RewardOutput(0.0, metadata={"errors": [f"there is no part {self.part!r}"]})
        try:
            value = parse_json(text)
        except ValueError as error:
            return RewardOutput(0.0, metadata={"errors": [str(error)[:_MAX_MESSAGE]]})
        errors = [] if validator is None else self._errors(validator, value)
        return RewardOutput(float(not errors), metadata={"errors": errors})

    def _errors(self, validator: Any, value: Any) -> list[str]:
        import referencing.exceptions  # noqa: PLC0415  # part of jsonschema

        try:
            found = list(islice(validator.iter_errors(value), _MAX_ERRORS))
        except (referencing.exceptions.Unresolvable, re.error) as error:
            raise self._bad_schema(f"{type(error).__name__}: {error}") from error
        return [f"{error.json_path}: {error.message}"[:_MAX_MESSAGE] for error in found]

    def _validator_of(self, sample: Sample) -> Any:
        if not self.schema_in_reference:
            return self._own_validator
        given = sample.reference
        if not isinstance(given, (str, Mapping, bool)):
            raise self._bad_schema(f"expected a mapping or its JSON text, found {brief(given)}")
        try:
            text = given if isinstance(given, str) else dumps(given)
        except (TypeError, ValueError) as error:
            raise self._bad_schema(str(error)) from error
        try:
            return _validator_of_text(text, self.check_formats)
        except _SchemaError as error:
            raise self._bad_schema(str(error)) from error

    @cached_property
    def _own_schema(self) -> Any:
        if not isinstance(self.schema, str):
            return self.schema
        try:
            return parse_json(Path(self.schema).expanduser().read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"the schema {self.schema} cannot be read: {error}", reward=self.name) from error

    @cached_property
    def _own_validator(self) -> Any:
        if self._own_schema is None:
            return None
        try:
            return _validator(self._own_schema, check_formats=self.check_formats)
        except _SchemaError as error:
            raise self._bad_schema(str(error)) from error

    def _bad_schema(self, why: str) -> FluxRewardsError:
        message = f"is no JSON Schema that can be used: {why[:_MAX_MESSAGE]}"
        if self.schema_in_reference:
            return InputError(message, field="reference")
        return ConfigError(f"schema {message}", reward=self.name)


class _SchemaError(ValueError):
    """What is wrong with a schema."""


@lru_cache(maxsize=256)
def _validator_of_text(text: str, check_formats: bool) -> Any:
    """Cached: a group of responses shares its reference."""
    try:
        schema = parse_json(text)
    except ValueError as error:
        raise _SchemaError(str(error)) from error
    return _validator(schema, check_formats=check_formats)


def _validator(schema: Any, *, check_formats: bool) -> Any:
    try:
        import jsonschema  # noqa: PLC0415  # part of the extra
        from jsonschema_specifications import REGISTRY  # noqa: PLC0415  # its part
    except ImportError as error:
        raise MissingDependencyError('JSON Schema needs jsonschema: pip install "flux_rewards[text]"') from error
    if not isinstance(schema, (dict, bool)):
        raise _SchemaError(f"expected an object, true or false, found {brief(schema)}")
    kind: Any = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise _SchemaError(f"{error.json_path}: {error.message}") from error
    # With this registry, since the default one fetches what a schema refers to.
    return kind(schema, registry=REGISTRY, format_checker=kind.FORMAT_CHECKER if check_formats else None)
