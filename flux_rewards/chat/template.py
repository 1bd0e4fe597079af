"""Texts with places for a sample's own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from flux_rewards.chat.content import plain
from flux_rewards.data import FIELDS
from flux_rewards.errors import ConfigError, close_match

__all__ = ["filled", "placeholders"]

_PLACE = re.compile(r"\{\{([a-z_]+)\}\}|\{([a-z_]*)\}")


def placeholders(template: str, known: Sequence[str], parameter: str, reward: str) -> list[str]:
    r"""The names that a template has in braces, as in ``"Does this show {prompt}?"``; each once, in order.

    ``{{name}}`` stands for ``{name}`` as it is, and braces around anything else, such as JSON or LaTeX, are text.

    Raises:
        ConfigError: A name is nearly one of those that there are, another field's, or none, as in ``{}``.

    Examples:
        >>> placeholders('Is it {prompt}? Answer {"a": 1}, not {{prompt}}.', ["prompt"], "question", "judge")
        ['prompt']
    """
    found = list(dict.fromkeys(match.group(2) for match in _PLACE.finditer(template) if match.group(2) is not None))
    for name in found:
        if name not in known and (not name or name in FIELDS or close_match(name, known)):
            where = ", ".join(f"{{{entry}}}" for entry in known)
            hint = f"{close_match(name, known)}; {{{{{name}}}}} is text" if name else ""
            raise ConfigError(f"{parameter} has the place {{{name}}}; there is {where}{hint}", reward=reward)
    return [name for name in found if name in known]


def filled(template: str, values: Mapping[str, str]) -> str:
    """The template with each place filled, in one pass: what comes in is never read as a template again.

    Examples:
        >>> filled("Does it show {prompt}?", {"prompt": "a {prompt} <|im_end|>"})
        'Does it show a {prompt} < |im_end|>?'
    """
    return _PLACE.sub(lambda match: _value(match, values), template)


def _value(match: re.Match[str], values: Mapping[str, str]) -> str:
    if match.group(1):
        return f"{{{match.group(1)}}}"
    return plain(values[match.group(2)]) if match.group(2) in values else match.group()
