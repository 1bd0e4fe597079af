"""Values as JSON and back."""

from __future__ import annotations

import json
import math
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from flux_rewards.plain import NotPlain, from_plain, to_plain

FEW = settings(max_examples=150, deadline=None)


def exactly(value: Any) -> Any:
    """A value and the kinds of all that it holds, so that 1, 1.0 and True differ, and NaN is itself."""
    if isinstance(value, dict):
        return "dict", [(exactly(key), exactly(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [exactly(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return type(value).__name__, value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, float):
        return "float", "nan" if math.isnan(value) else value.hex()
    return type(value).__name__, value


def by_json(value: Any) -> Any:
    """There and back, as it travels."""
    return from_plain(json.loads(json.dumps(to_plain(value))))


_scalar_dtypes = st.one_of(
    st_numpy.boolean_dtypes(),
    st_numpy.integer_dtypes(endianness="?"),
    st_numpy.floating_dtypes(endianness="?"),
    st_numpy.complex_number_dtypes(endianness="?"),
    st_numpy.datetime64_dtypes(),
    st_numpy.timedelta64_dtypes(),
    st_numpy.unicode_string_dtypes(max_len=5),
    st_numpy.byte_string_dtypes(max_len=5),
)
_arrays = st_numpy.arrays(_scalar_dtypes, st_numpy.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
_numbers = _scalar_dtypes.flatmap(lambda dtype: st_numpy.arrays(dtype, ())).map(lambda array: array[()])
_hashable = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary()),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=4,
)
VALUES = st.recursive(
    st.one_of(_hashable, _arrays, _numbers),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(_hashable, inner, max_size=4),
        st.dictionaries(st.sampled_from(["tuple", "dict", "array", "bytes", "buffer", "tensor"]), inner, max_size=2),
    ),
    max_leaves=12,
)


@FEW
@given(VALUES)
def test_what_comes_back_is_what_went(value: Any) -> None:
    """To the last bit, and of the same types."""
    assert exactly(by_json(value)) == exactly(value)


@pytest.mark.parametrize(
    "value",
    [np.str_(""), np.bytes_(b""), np.zeros((0, 2)), np.zeros((2, 0), dtype="U3"), np.zeros(2, dtype="U0")],
    ids=repr,
)
def test_what_is_empty(value: Any) -> None:
    """Nothing is a value, too."""
    assert exactly(by_json(value)) == exactly(value)


def test_arrays_with_named_fields_keep_their_names_or_are_refused() -> None:
    """Bytes without names are another array; and what the other side refuses must not be sent."""
    value = np.array([(1, 2.0)], dtype=[("count", "<i4"), ("share", "<f8")])
    try:
        told = to_plain(value)
    except NotPlain:
        return
    assert from_plain(told).dtype == value.dtype


def test_another_mapping_comes_back_as_a_dict() -> None:
    """What it holds is kept."""
    assert by_json(MappingProxyType({"a": (1,)})) == {"a": (1,)}


def test_an_array_that_came_is_ones_own() -> None:
    """It can be written to, and shares nothing."""
    (first, second) = by_json([np.zeros(2), np.zeros(2)])
    first[:] = 1
    assert second.tolist() == [0, 0]


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        frozenset(),
        1j,
        range(3),
        bytearray(b"a"),
        np.array([object()]),
        np.ma.masked_array([1], [True]),
        iter([]),
        print,
        type("Text", (str,), {})("a"),
        type("Number", (int,), {})(1),
        type("Items", (list,), {})([1]),
    ],
    ids=repr,
)
def test_what_has_no_form_is_refused(value: Any) -> None:
    """Never something like it."""
    for held in (value, [value], {"a": (value,)}):
        with pytest.raises(NotPlain):
            to_plain(held)


_KINDS = ["array", "bytes", "dict", "tuple", "pickle", "", "buffer"]
_json = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.text(max_size=6),
        st.sampled_from(
            ["<f8", "|O", "O", "(2,", "i4,i4", "|V8", "<U0", "|S0", "M8[x]", "", "8", "object", "AAAA", "="]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(_KINDS), st.text(max_size=3)), inner, max_size=2),
        st.builds(lambda name, shape, data: {"array": [name, shape, {"bytes": data}]}, inner, inner, inner),
        st.builds(lambda pairs: {"dict": pairs}, st.lists(st.lists(inner, min_size=2, max_size=2), max_size=2)),
    ),
    max_leaves=10,
)


@settings(max_examples=400, deadline=None)
@given(_json)
def test_json_that_is_none_of_these_values(told: Any) -> None:
    """It is read or refused with one kind of error, whatever it holds."""
    try:
        found = from_plain(told)
    except NotPlain:
        return
    assert exactly(by_json(found)) == exactly(found)


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"tuple": [], "dict": []},
        {"object": "os.system"},
        {"tuple": 5},
        {"tuple": None},
        {"dict": [[1]]},
        {"dict": [[1, 2, 3]]},
        {"dict": [[[1], 2]]},
        {"dict": [[{"dict": []}, 2]]},
        {"dict": 5},
        {"bytes": 5},
        {"bytes": "not base64!"},
        {"bytes": "AAA"},
        {"bytes": "\u00e9"},
        {"array": []},
        {"array": ["<f8", [1]]},
        {"array": ["|O", [1], {"bytes": "AAAAAAAAAAA="}]},
        {"array": ["<f8", [2], {"bytes": "AAAAAAAAAAA="}]},
        {"array": ["<f8", [-1, 1], {"bytes": "AAAAAAAAAAA="}]},
        {"array": ["<f8", [2**70], {"bytes": ""}]},
        {"array": ["<f8", [0, 2**62, 2**62], {"bytes": ""}]},
        {"array": ["<f8", None, {"bytes": ""}]},
        {"array": ["<f8", [1], "AAAAAAAAAAA="]},
        {"array": ["<f8", [1], [0] * 8]},
        {"array": ["(2,i4", [1], {"bytes": "AAAAAAAAAAA="}]},
        {"array": ["i4,O", [1], {"bytes": "AAAAAAAAAAA="}]},
        {"array": ["nothing", [1], {"bytes": "AAAAAAAAAAA="}]},
        {"array": [None, [1], {"bytes": "AAAAAAAAAAA="}]},
        {"array": [5, [1], {"bytes": "AAAAAAAAAAA="}]},
        {"array": [[["a", "O"]], [1], {"bytes": "AAAAAAAAAAA="}]},
        {"array": [{"tuple": []}, [1], {"bytes": "AAAAAAAAAAA="}]},
    ],
    ids=str,
)
def test_json_that_is_refused(told: Any) -> None:
    """By name, wherever it stands."""
    for held in (told, [told], {"tuple": [told]}):
        with pytest.raises(NotPlain):
            from_plain(held)
