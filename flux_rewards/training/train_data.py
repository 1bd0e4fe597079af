"""Preference pairs as the tokens that a trainer reads, and how many of them were too long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import ConfigError, InputError
from flux_rewards.models.text_format import CHAT, PAIR, EncodedText, TextFormat
from flux_rewards.training.preferences_data import PreferenceData
from flux_rewards.training.prompts import refuse_unknown_prompts

if TYPE_CHECKING:
    from flux_rewards.data import Sample
    from flux_rewards.training.settings import TrainingSettings

__all__ = ["Parts", "TokenPairs", "check_pairs", "encode_pairs", "format_for", "parts_of"]

_FEW = 0.1  # of the pairs
_USUAL_LENGTH = 1024
_PLAIN = "{prompt}\n{response}"


@dataclass(frozen=True)
class Parts:
    """What is learned from, what watches the learning, and what measures it in the end.

    Attributes:
        train: Pairs to learn from.
        validation: Pairs that decide when to stop; None for none.
        test: Pairs that decide nothing; None for none.
        shared: Prompts of `test` that are in the others, too; None where nobody knows: pairs have no prompt.
    """

    train: PreferenceData
    validation: PreferenceData | None
    test: PreferenceData | None
    shared: int | None


@dataclass(frozen=True)
class TokenPairs:
    """Pairs as tokens.

    Attributes:
        chosen: The better answers.
        rejected: The others.
        margins: One a pair, or None.
        too_long: Pairs that were left out since one side was too long.
        cut: Pairs of which a side was cut.
        set_apart: Control tokens in the texts that were made plain text.
        alike: Pairs that were left out since their sides are the same as tokens: behind a cut, or of unknown words.
    """

    chosen: list[EncodedText]
    rejected: list[EncodedText]
    margins: list[float] | None = None
    too_long: int = 0
    cut: int = 0
    set_apart: int = 0
    alike: int = 0

    def __len__(self) -> int:
        return len(self.chosen)

    def warnings(self, format_: TextFormat) -> list[str]:
        """What is so frequent that one line among others would not do."""
        found = []
        total = len(self) + self.too_long + self.alike
        if self.too_long + self.alike > _FEW * total:
            found.append(
                f"{self.too_long + self.alike} of {total} pairs are left out: {self.too_long} are longer than "
                f"max_length={format_.max_length}, {self.alike} have the same tokens on both sides"
            )
        if self.set_apart > len(self):
            found.append(
                f"the texts hold {self.set_apart} control tokens, which are read as plain text; if they are rendered "
                "already, set format=TextFormat('{prompt}{response}', obey_control_tokens=True)"
            )
        return found

    def columns(self) -> dict[str, list[Any]]:
        """As TRL's `RewardTrainer` takes data that is tokenized: ``chosen_ids``, ``rejected_ids``, and ``margin``."""
        found: dict[str, list[Any]] = {}
        for name, texts in (("chosen", self.chosen), ("rejected", self.rejected)):
            found[f"{name}_ids"] = [text.token_ids for text in texts]
            if any(text.token_type_ids is not None for text in texts):
                found[f"{name}_types"] = [text.token_type_ids or [0] * len(text) for text in texts]
        if self.margins is not None:
            found["margin"] = self.margins
        return found


def check_pairs(pairs: Any, what: str = "pairs") -> PreferenceData:
    """The pairs as `PreferenceData`, each of them of texts that differ, with a prompt unless there is to be none.

    Raises:
        InputError: There are none, one is no pair of texts, or its two sides are the same: it says nothing; or prompts
            were not found, and nobody said that there are none.

    Examples:
        >>> from flux_rewards.training.preferences import PreferencePair
        >>> len(check_pairs([PreferencePair("2 + 2?", "4", "5")]))
        1
    """
    data = pairs if isinstance(pairs, PreferenceData) else PreferenceData(pairs)
    if not len(data):
        raise InputError(f"there are no {what} to train on")
    for index, pair in enumerate(data):
        if not pair.is_text:
            raise InputError(f"{what} {index} is of images or videos; a reward model of texts is trained here")
    same = [index for index, pair in enumerate(data) if pair.chosen == pair.rejected]
    if same:
        raise InputError(
            f"{len(same)} of {len(data)} {what} have the same text on both sides (first: {same[0]}), which teaches "
            "nothing; PreferenceData.cleaned() leaves them out"
        )
    refuse_unknown_prompts(data, what)
    return data


def parts_of(pairs: PreferenceData, eval_pairs: PreferenceData | None, settings: TrainingSettings) -> Parts:
    """Held-out pairs and validation pairs, split off by prompt.

    Raises:
        InputError: There are too few prompts for that.
    """
    train, test, validation = pairs, eval_pairs, None
    if test is None and settings.held_out:
        train, test = train.split(settings.held_out, seed=settings.seed)
    if settings.validation:
        train, validation = train.split(
            settings.validation / (1 - settings.held_out * (eval_pairs is None)), seed=settings.seed + 1
        )
    shared: int | None = 0 if eval_pairs is None else eval_pairs.shared_prompts(pairs)
    if pairs.without_prompt or (eval_pairs is not None and eval_pairs.without_prompt):
        shared = None
    return Parts(train, validation, test, shared)


def format_for(
    settings: TrainingSettings, pairs: PreferenceData, tokenizer: Any, longest: int | None, *, encoder: bool
) -> TextFormat:
    """How texts become tokens: as the settings have it, or as suits the model; never longer than it can read.

    Args:
        settings: With a format, or none.
        pairs: Without prompts, they need a format that has no place for one.
        tokenizer: Of the model.
        longest: Tokens that the model can read; None where nobody says.
        encoder: Whether it sees all tokens at once, as BERT does.

    Raises:
        ConfigError: The tokenizer lacks what the format needs, or more tokens are asked for than the model can read.
        InputError: The format has a place for a prompt, and a pair has none.
    """
    format_ = settings.format
    if format_ is None:
        if tokenizer.chat_template:
            template = CHAT
        elif encoder:
            template = PAIR
        else:
            template = _PLAIN + ("{eos_token}" if tokenizer.eos_token is not None else "")
        if all(pair.prompt is None for pair in pairs):
            template = "{response}{eos_token}" if tokenizer.eos_token is not None else "{response}"
        format_ = TextFormat(template)
    format_.check(tokenizer)
    if format_.uses_prompt and (without := [index for index, pair in enumerate(pairs) if pair.prompt is None]):
        raise InputError(
            f"{len(without)} of {len(pairs)} pairs have no prompt (first: {without[0]}), and the format "
            f"{format_.template!r} has a place for one; give them prompts, or all of them none and a format without"
        )
    wanted = format_.max_length or settings.max_length
    if wanted is not None and longest is not None and wanted > longest:
        raise ConfigError(f"max_length is {wanted}, and the model reads {longest} tokens at most")
    return replace(format_, max_length=wanted or min(_USUAL_LENGTH, longest or _USUAL_LENGTH))


def encode_pairs(
    pairs: PreferenceData, format_: TextFormat, tokenizer: Any, settings: TrainingSettings, what: str = "pairs"
) -> TokenPairs:
    """The tokens of both sides of each pair, the same as in scoring. Sides that are the same as tokens teach nothing.

    Raises:
        InputError: A text that the format has no place for, by the pair's position; or, where `long_pairs` is
            ``"error"``, one that is too long; or no pair is short enough, and has sides that differ as tokens.
    """
    sides: dict[str, list[EncodedText]] = {"chosen": [], "rejected": []}
    kept, too_long, cut, alike = [], 0, 0, 0
    for index, pair in enumerate(pairs):
        chosen = _encoded(format_, tokenizer, pair.chosen_sample, f"{what} {index}, chosen")
        rejected = _encoded(format_, tokenizer, pair.rejected_sample, f"{what} {index}, rejected")
        over = max(chosen.truncated, rejected.truncated)
        if over and settings.long_pairs == "error":
            raise InputError(f"{what} {index} is {over} tokens longer than max_length={format_.max_length}")
        if over and settings.long_pairs == "leave_out":
            too_long += 1
            continue
        if chosen.token_ids == rejected.token_ids and chosen.token_type_ids == rejected.token_type_ids:
            alike += 1
            continue
        cut += bool(over)
        sides["chosen"].append(chosen)
        sides["rejected"].append(rejected)
        kept.append(pair)
    if not kept:
        raise InputError(
            f"of {len(pairs)} {what}, {too_long} have a side of more than {format_.max_length} tokens, and {alike} the "
            "same tokens on both sides; raise max_length, set long_pairs='cut', or look at the tokenizer"
        )
    set_apart = sum(text.set_apart for texts in sides.values() for text in texts)
    margins = _margins(kept, settings, what)
    return TokenPairs(**sides, margins=margins, too_long=too_long, cut=cut, set_apart=set_apart, alike=alike)


def _encoded(format_: TextFormat, tokenizer: Any, sample: Sample, where: str) -> EncodedText:
    assert sample.response is not None  # noqa: S101  # checked with the pairs
    try:
        return format_.encode(tokenizer, sample.prompt, sample.response, tools=sample.metadata.get("tools"))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _margins(pairs: Sequence[Any], settings: TrainingSettings, what: str) -> list[float] | None:
    given = [pair.margin for pair in pairs if pair.margin is not None]
    if not settings.use_margin or not given:
        return None
    if len(given) < len(pairs):
        raise InputError(
            f"{len(given)} of {len(pairs)} {what} have a margin; give all of them one or none, or set use_margin=False"
        )
    return given
