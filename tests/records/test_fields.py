from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flux_rewards.data import Sample
from flux_rewards.records.fields import near_misses, sample_of

FOLDER = Path("data") / "set"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"prompt": "a", "response": None}, {"prompt": "a"}),
        ({"prompt": [{"role": "user", "content": "a"}]}, {"prompt": [{"role": "user", "content": "a"}]}),
        ({"image": "x/a.png"}, {"image": str(FOLDER / "x" / "a.png")}),
        ({"image": "/x/a.png"}, {"image": "/x/a.png"}),
        ({"video": ["0.png", "/1.png"]}, {"video": [str(FOLDER / "0.png"), "/1.png"]}),
        ({"condition_images": ["a.png"]}, {"condition_images": [str(FOLDER / "a.png")]}),
        ({"condition_videos": [["a.png"], []]}, {"condition_videos": [[str(FOLDER / "a.png")], []]}),
        ({"video": "a.mp4"}, {"video": str(FOLDER / "a.mp4")}),
        ({"condition_videos": ["a.mp4"]}, {"condition_videos": [str(FOLDER / "a.mp4")]}),
        (
            {"token_ids": [1, 2], "token_offsets": [[0, 1], [1, 3]]},
            {"token_ids": [1, 2], "token_offsets": [(0, 1), (1, 3)]},
        ),
        ({"group_id": 7}, {"group_id": 7}),
        ({"group_id": "q-7"}, {"group_id": "q-7"}),
        ({"reference": {"any": [1]}}, {"reference": {"any": [1]}}),
        ({"metadata": {"a": 1}, "b": 2, "c": None}, {"metadata": {"a": 1, "b": 2, "c": None}}),
        ({"metadata": None, "b": 2}, {"metadata": {"b": 2}}),
    ],
)
def test_fields_by_name_and_the_rest_into_the_metadata(values: dict[str, Any], expected: Any) -> None:
    """Fields are read by name, media paths from the file's folder, and other keys are metadata."""
    assert sample_of(values, FOLDER) == Sample(**expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompt": 3}, "'prompt' must be text or a list of chat messages, each with a 'role', found 3"),
        ({"response": ["a"]}, "'response' must be text or a list of chat messages"),
        ({"image": ["a.png"]}, "'image' must be a path"),
        ({"image": ""}, "'image' must be a path"),
        ({"image": "https://a.b/c.png"}, r"'image' must be a path \(media are not fetched\), found 'https:"),
        ({"video": 7}, "'video' must be the path of a video, or a list"),
        ({"condition_images": ["a.png", 3]}, r"'condition_images\[1\]' must be a path .*, found 3"),
        ({"condition_videos": [7]}, r"'condition_videos\[0\]' must be the path of a video, or a list"),
        ({"token_ids": [1, True]}, "'token_ids' must be a list of whole numbers"),
        ({"token_offsets": [[0, 1, 2]]}, r"'token_offsets' must be a list of pairs \[start, end\]"),
        ({"group_id": [1]}, "'group_id' must be text or a number"),
        ({"group_id": True}, "'group_id' must be text or a number"),
        ({"group_id": float("nan")}, "'group_id' must be text or a number"),
        ({"metadata": "a"}, "'metadata' must be an object"),
        ({"metadata": {"a": 1}, "a": 1}, "'a' is there twice"),
    ],
)
def test_a_field_of_the_wrong_type_is_refused(values: dict[str, Any], message: str) -> None:
    """A value of the wrong type is an error with the field, what it must be, and what was found."""
    with pytest.raises(ValueError, match=message):
        sample_of(values, FOLDER)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["prompt", "respones"], {"respones": " (did you mean 'response'?)"}),
        (["Prompt"], {"Prompt": " (did you mean 'prompt'?)"}),
        (["response", "respones"], {"respones": " (did you mean 'response'?)"}),
        (["prompt", "prompt_id"], {}),  # the field that it resembles is there
        (["question", "answer", "split"], {}),
    ],
)
def test_a_misspelt_field_is_noticed(names: list[str], expected: Any) -> None:
    """A name that resembles a field gets a hint, unless it only goes on after one that is there."""
    assert near_misses(dict.fromkeys(names)) == expected
