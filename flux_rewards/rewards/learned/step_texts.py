"""How a response in steps becomes the tokens of a process reward model, and where it speaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import ConfigError, InputError
from flux_rewards.models.control_tokens import control_tokens_of
from flux_rewards.models.text_format import CHAT, EncodedText, TextFormat, lone_text

if TYPE_CHECKING:
    from flux_rewards.data import Messages

__all__ = ["STEPS", "TEXT", "TURNS", "EncodedSteps", "StepFormat"]

TURNS = "turns"
STEPS = "steps"
TEXT = "text"
_PROMPT = "{prompt}"
_STAND_IN = "\u2063the prompt\u2063"


@dataclass(frozen=True)
class EncodedSteps:
    """The tokens of a prompt and all steps.

    Attributes:
        text: The tokens.
        places: For each step the token at which its score is read.
    """

    text: EncodedText
    places: list[int]

    def __len__(self) -> int:
        return len(self.text)


@dataclass(frozen=True)
class StepFormat:
    """How prompt and steps become tokens.

    Args:
        template: What stands before the first step: ``"chat"``, the prompt as the chat template puts it, up to where
            the model speaks; a text with ``{prompt}``; or ``"turns"``: each step is a message of the user, the first
            one led by the prompt and a space, and each is answered by `good`.
        step_end: What is written after each step, and at whose last token its score is read. Not for turns.
        good: The answer of turns.
        chat_options: For the chat template.
        step_joint: What is written between `step_end` and the next step. Not for turns.
        tokenized: What the tokenizer is given at once: ``"steps"``, prompt, step and `step_end` each by itself, which
            keeps apart what a tokenizer would join; or ``"text"``, all of it. Turns are one text always.

    The two differ by more than joined tokens: a SentencePiece tokenizer (Llama 2, Mistral) writes a space before each
    text that it is given.
    """

    template: str
    step_end: str
    good: str
    chat_options: Mapping[str, Any] = field(default_factory=dict)
    step_joint: str = ""
    tokenized: str = STEPS

    def check(self, tokenizer: Any) -> None:
        """Raise a `ConfigError` unless the tokenizer has what the template needs."""
        if self.template in (CHAT, TURNS):
            TextFormat(CHAT).check(tokenizer)
        if self.template == TURNS or self.tokenized == TEXT:
            if not tokenizer.is_fast:
                raise ConfigError("the tokenizer does not tell where its tokens stand; save it as tokenizer.json")
        elif not _ids(tokenizer, self.step_end):
            raise ConfigError(f"step_end {self.step_end!r} has no tokens, and a score is read at its last")

    def encode(
        self, tokenizer: Any, prompt: str | Messages | None, steps: Sequence[str], max_length: int | None
    ) -> EncodedSteps:
        """The tokens, and the places of the scores.

        Raises:
            InputError: The prompt has no place, the steps alone are too long, or the tokenizer joins two of them.
            ConfigError: The chat template rewrites earlier turns, or `step_end` ends in what is no token.
        """
        control = control_tokens_of(tokenizer)
        apart = [control.apart(step) for step in steps]
        plain, set_apart = [text for text, _ in apart], sum(count for _, count in apart)
        if self.template == TURNS:
            ids, places, kept, start, more = self._turns(tokenizer, prompt, plain)
        else:
            opening, more = self._opening(tokenizer, prompt)
            read = self._in_one if self.tokenized == TEXT else self._one_by_one
            ids, places, start = read(tokenizer, opening, plain)
            kept = int(ids[0] in (tokenizer.bos_token_id, tokenizer.cls_token_id))
        over = 0 if max_length is None else max(0, len(ids) - max_length)
        if over > start - kept:
            raise InputError(
                f"prompt and steps have {len(ids)} tokens, and the model reads {max_length}; raise max_length",
                field="response",
            )
        # The beginning of the prompt goes, for a step that is not read has no score.
        ids, places = [*ids[:kept], *ids[kept + over :]], [place - over for place in places]
        return EncodedSteps(EncodedText(ids, None, over, set_apart + more), places)

    def _opening(self, tokenizer: Any, prompt: str | Messages | None) -> tuple[str, int]:
        """The text before the first step, and the control tokens set apart."""
        if self.template == CHAT:
            asked: Any = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            options = {**self.chat_options, "add_generation_prompt": True}
            return TextFormat(CHAT, chat_options=options).text(tokenizer, None, asked)
        text, set_apart = control_tokens_of(tokenizer).apart(lone_text(prompt))
        return self.template.replace(_PROMPT, text), set_apart

    def _one_by_one(self, tokenizer: Any, opening: str, steps: Sequence[str]) -> tuple[list[int], list[int], int]:
        """Tokens, the places of scores, and where the steps begin: each piece by itself."""
        ids = _ids(tokenizer, opening)
        if self.template != CHAT:
            first = [token for token in (tokenizer.bos_token_id, tokenizer.cls_token_id) if token is not None][:1]
            ids = [*first, *ids] if ids[:1] != first else ids
        end, joint = _ids(tokenizer, self.step_end), _ids(tokenizer, self.step_joint) if self.step_joint else []
        start = len(ids)
        places: list[int] = []
        for step in steps:
            ids = [*ids, *(joint if places else ()), *_ids(tokenizer, step), *end]
            places.append(len(ids) - 1)
        return ids, places, start

    def _in_one(self, tokenizer: Any, opening: str, steps: Sequence[str]) -> tuple[list[int], list[int], int]:
        """The same, of the whole text at once."""
        text = opening
        ends: list[int] = []
        for step in steps:
            text += f"{self.step_joint if ends else ''}{step}{self.step_end}"
            ends.append(len(text))
        ids, spans = _spans(tokenizer, text, special=self.template != CHAT)
        places = []
        for end in ends:
            holding = [place for place, (start, stop) in enumerate(spans) if start < end <= stop]
            if not holding:
                raise ConfigError(
                    f"step_end {self.step_end!r} ends in what is no token, and a score is read at its last"
                )
            if spans[holding[-1]][1] > end + len(self.step_joint):
                raise InputError(
                    f"the tokenizer joins {self.step_end!r} with the step behind it, which its score must not know",
                    field="response",
                )
            places.append(holding[-1])
        start = next(place for place, (_, stop) in enumerate(spans) if stop > len(opening))
        return ids[: places[-1] + 1], places, start  # nothing after the last score decides one

    def _turns(
        self, tokenizer: Any, prompt: str | Messages | None, steps: Sequence[str]
    ) -> tuple[list[int], list[int], int, int, int]:
        """A conversation of steps and praise; a score is read where the model would speak.

        Returns:
            Tokens, the places of scores, where the prompt begins and the first step, and the control tokens set apart.
        """
        asked, set_apart = control_tokens_of(tokenizer).apart(lone_text(prompt))
        said = [f"{asked} {steps[0]}", *steps[1:]]
        messages: list[dict[str, str]] = []
        openings: list[str] = []
        for text in said:
            messages.append({"role": "user", "content": text})
            openings.append(self._rendered(tokenizer, messages, add_generation_prompt=True))
            messages.append({"role": "assistant", "content": self.good})
        whole = self._rendered(tokenizer, messages)
        ids, spans = _spans(tokenizer, whole, special=False)
        places: list[int] = []
        for opening in openings:
            if not whole.startswith(opening):
                raise ConfigError(
                    "template='turns' needs a chat template that writes earlier turns as it wrote them at first"
                )
            # What stands before the answer decides it, even where the answer's token begins with a space of the turn.
            answer = next((place for place, (_, stop) in enumerate(spans) if stop > len(opening)), len(spans))
            places.append(answer - 1)
        before = self._rendered(tokenizer, [{"role": "user", "content": _STAND_IN}]).partition(_STAND_IN)[0]
        prompt_end = len(before) + len(asked) if whole.startswith(before + said[0]) else len(before)
        kept = sum(stop <= len(before) for _, stop in spans)
        start = sum(stop <= prompt_end for _, stop in spans)
        return ids, places, kept, start, set_apart

    def _rendered(self, tokenizer: Any, messages: list[dict[str, str]], **options: Any) -> str:
        try:
            return str(tokenizer.apply_chat_template(messages, tokenize=False, **{**self.chat_options, **options}))
        except Exception as error:  # templates raise what they like
            raise InputError(f"the chat template refuses the steps: {type(error).__name__}: {error}") from error


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def _spans(tokenizer: Any, text: str, *, special: bool) -> tuple[list[int], list[tuple[int, int]]]:
    """The tokens of a text, and the characters of each; what begins a text stands there once."""
    found = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True, verbose=False)
    ids: list[int] = list(found["input_ids"])
    spans: list[tuple[int, int]] = [(start, stop) for start, stop in found["offset_mapping"]]
    first = {tokenizer.bos_token_id, tokenizer.cls_token_id} - {None}
    doubled = int(special and len(ids) > 1 and ids[0] == ids[1] and ids[0] in first)
    return ids[doubled:], spans[doubled:]
