"""JSONFormat and JSONMatch against jsonschema and the definitions."""

import json
import random
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import jsonschema
import pytest

from flux_rewards import ConfigError, InputError, MissingDependencyError
from flux_rewards.fingerprint import fingerprint
from flux_rewards.rewards.text.json_format import JSONFormat
from flux_rewards.rewards.text.json_match import JSONMatch
from flux_rewards.rewards.text.json_text import comparable, leaves, parse_json

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "ages": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True},
    },
    "required": ["name"],
    "additionalProperties": {"type": "number"},
}


def some_value(generator: random.Random, depth: int = 3) -> Any:
    """Anything that JSON has, with few different leaves, so that many are equal."""
    kind = generator.randrange(8 if depth else 6)
    if kind == 6:
        return [some_value(generator, depth - 1) for _ in range(generator.randrange(3))]
    if kind == 7:
        return {name: some_value(generator, depth - 1) for name in generator.sample(["name", "ages", "x"], k=2)}
    return generator.choice([None, True, False, 0, 1, 1.0, 2.5, "", "a", "1"])


def equal(one: Any, other: Any) -> bool:
    """The definition of JSON Schema."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    numbers = all(type(value) in (int, float) for value in (one, other))
    return bool((numbers or type(one) is type(other)) and one == other)


def test_validity_is_that_of_jsonschema() -> None:
    """On random values, and most are invalid."""
    generator = random.Random(0)
    values = [some_value(generator) for _ in range(400)] + [{"name": "a", "ages": [1, index]} for index in range(3)]
    validator = jsonschema.Draft202012Validator(SCHEMA)
    expected = [float(validator.is_valid(value)) for value in values]
    found = JSONFormat(SCHEMA)(response=[json.dumps(value) for value in values]).rewards.tolist()
    assert found == expected
    assert 0 < sum(expected) < len(expected)


def test_equality_is_that_of_json_schema() -> None:
    """On random pairs, written in another order of names."""
    generator = random.Random(1)
    pairs = [(some_value(generator, 2), some_value(generator, 2)) for _ in range(400)]
    expected = [float(equal(one, other)) for one, other in pairs]
    responses = [json.dumps(one, sort_keys=True) for one, _ in pairs]
    references = [json.dumps(other) for _, other in pairs]
    assert JSONMatch()(response=responses, reference=references).rewards.tolist() == expected
    assert 0 < sum(expected) < len(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ("{} {}", "Extra data"),
        ("[1,]", "(?i)(expecting value|trailing comma)"),
        ("-Infinity", "-Infinity is no JSON"),
        ("[1e400]", "the number 1e400 is too large"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the name 'c' stands twice"),
        ("[" * 101 + "]" * 101, "nested deeper than 100"),
        ("[" * 1_000_000, "nested deeper than 100"),
        ('{"a":' * 200 + "1" + "}" * 200, "nested deeper than 100"),
        ("1" * 5000, "4300 digits"),
        ("\ufeff{}", "."),
        ("'a'", "Expecting value"),
        ("True", "Expecting value"),
    ],
)
def test_what_is_no_json(text: str, message: str) -> None:
    """Said in words, and a zero with the reason."""
    with pytest.raises(ValueError, match=message):
        parse_json(text)
    batch = JSONFormat()(response=[text])
    assert batch.rewards.tolist() == [0.0]
    assert len(batch.metadata[0]["errors"][0]) <= 200


def test_errors_say_where() -> None:
    """Up to five of them."""
    response = '{"name": "", "ages": [1, "x", 1.5, null, true, {}, []]}'
    errors = JSONFormat(SCHEMA)(response=[response]).metadata[0]["errors"]
    assert len(errors) == 5
    assert "$.ages[1]: 'x' is not of type 'integer'" in errors


def test_the_draft_is_the_schemas_own(tmp_path: Path) -> None:
    """Draft 4's exclusiveMaximum is a truth value; a schema may be a file."""
    schema = {"$schema": "http://json-schema.org/draft-04/schema#", "maximum": 3, "exclusiveMaximum": True}
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(schema))
    for given in (schema, str(path)):
        assert JSONFormat(given)(response=["3", "2"]).rewards.tolist() == [0.0, 1.0]


def test_a_cache_goes_by_the_content_of_the_file(tmp_path: Path) -> None:
    """Not by its path alone."""
    path = tmp_path / "schema.json"
    seen = []
    for kind in ("string", "null"):
        path.write_text(json.dumps({"type": kind}))
        seen.append(fingerprint(list(JSONFormat(str(path)).decided_by)))
    assert seen[0] != seen[1]


@pytest.fixture
def requests_seen() -> Iterator[tuple[str, list[str]]]:
    """A web server with a schema, and what it was asked for."""
    seen: list[str] = []

    class Schemas(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Schemas) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/schema.json", seen
        server.shutdown()
        thread.join()


def test_nothing_is_fetched(requests_seen: tuple[str, list[str]]) -> None:
    """A reference's schema cannot make the trainer call an address."""
    address, seen = requests_seen
    with pytest.raises(ConfigError, match=r"schema is no JSON Schema that can be used: .*Unresolvable"):
        JSONFormat({"$ref": address})(response=["1"])
    with pytest.raises(InputError, match="sample 0, field 'reference': is no JSON Schema"):
        JSONFormat(schema_in_reference=True)(response=["1"], reference=[{"$ref": address}])
    assert seen == []


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "strin"}, "'strin' is not valid"),
        ({"pattern": "("}, "is no JSON Schema that can be used"),
        ("/nowhere/schema.json", "the schema /nowhere/schema.json cannot be read"),
    ],
)
def test_what_is_no_schema(schema: Any, message: str) -> None:
    """A setting that is wrong for all samples, and says so."""
    with pytest.raises(ConfigError, match=message):
        JSONFormat(schema)(response=['"a"'])


def test_impossible_parameters() -> None:
    """Refused when the reward is built."""
    with pytest.raises(ConfigError, match="schema must be a mapping or a path, found 3"):
        JSONFormat(3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="either schema or schema_in_reference"):
        JSONFormat({}, schema_in_reference=True)
    with pytest.raises(ConfigError, match="score must be one of exact, recall, precision, f1"):
        JSONMatch("fuzzy")


@pytest.mark.parametrize("reference", ["no json", {1, 2}, object(), float("nan")])
def test_what_is_no_reference(reference: Any) -> None:
    """Refused by name and place."""
    with pytest.raises(InputError, match="'JSONMatch', sample 0, field 'reference': expected a JSON value"):
        JSONMatch()(response=["1"], reference=[reference])


def test_without_jsonschema(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line that installs it; JSON without a schema needs nothing."""
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "flux_rewards\[text\]"'):
        JSONFormat({})(response=["1"])
    assert JSONFormat()(response=["1"]).rewards.tolist() == [1.0]


def test_leaves_and_forms() -> None:
    """Paths by name and place; without order, places don't count."""
    assert leaves({"a": [1, {}], "b": "x"}).keys() == {
        (("a", 0), ("number", 1)),
        (("a", 1), ("object", frozenset())),
        (("b",), ("str", "x")),
    }
    assert leaves([1, 2], ordered=False) == leaves([2, 1], ordered=False)
    assert comparable([1, 2], ordered=False) == comparable([2, 1.0], ordered=False)
    assert comparable((1, 2)) == comparable([1, 2]) != comparable([2, 1])
