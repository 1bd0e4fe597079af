"""The bodies of requests, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from flux_rewards.wire.samples import SAMPLES_TYPE

__all__ = ["COMPUTE", "OPENAPI", "SCORE"]

_IMAGE = {"type": "string", "description": "A PNG, JPEG or WebP in base64.", "contentEncoding": "base64"}
_IMAGES = {"type": "array", "items": _IMAGE}
_VIDEOS = {"type": "array", "items": _IMAGES}
_TEXT = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


_SAMPLE = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "prompt": _or_null(_TEXT),
        "response": _or_null(_TEXT),
        "image": _or_null(_IMAGE),
        "video": _or_null(_IMAGES),
        "condition_images": _or_null(_IMAGES),
        "condition_videos": _or_null(_VIDEOS),
        "reference": {},
        "token_ids": _or_null({"type": "array", "items": {"type": "integer"}}),
        "token_offsets": _or_null(
            {"type": "array", "items": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}}
        ),
        "group_id": _or_null({"anyOf": [{"type": "string"}, {"type": "number"}]}),
        "metadata": _or_null({"type": "object"}),
    },
}
_COLUMNS = {
    "type": "object",
    "required": ["prompt"],
    "additionalProperties": False,
    "properties": {
        "prompt": {"type": "array", "items": {"type": "string"}},
        "image": _or_null({"type": "array", "items": _or_null(_IMAGE)}),
        "video": _or_null({"type": "array", "items": _or_null(_IMAGES)}),
        "condition_images": _or_null({"type": "array", "items": _or_null(_IMAGES)}),
        "condition_videos": _or_null({"type": "array", "items": _or_null(_VIDEOS)}),
    },
}
_PROBLEM = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "type": {"type": "string"},
                "message": {"type": "string"},
                "field": _or_null({"type": "string"}),
                "index": _or_null({"type": "integer"}),
            },
        }
    },
}
_MEANINGS = {
    400: "Not JSON, or not samples.",
    401: "The token is missing or wrong.",
    408: "The body came too slowly.",
    413: "Too large.",
    415: "Another content type.",
    422: "A sample cannot be read.",
    500: "The reward failed.",
    503: "Loading, stuck or overloaded; Retry-After says when to come again.",
    504: "Over the deadline.",
}


def _responses(schema: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    return {
        status: {"description": meaning, "content": {"application/json": {"schema": schema}}}
        for status, meaning in _MEANINGS.items()
    }


OPENAPI: dict[str, Any] = {
    "description": "Rewards behind HTTP.",
    "responses": _responses({"type": "object"}),
}
SCORE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["samples"],
                    "properties": {"samples": {"type": "array", "items": _SAMPLE}},
                }
            },
            SAMPLES_TYPE: {"schema": {"type": "string", "format": "binary"}},
        },
    },
}
COMPUTE: dict[str, Any] = {"requestBody": {"required": True, "content": {"application/json": {"schema": _COLUMNS}}}}
