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

__all__ = ["TURNS", "EncodedSteps", "StepFormat"]

TURNS = "turns"
_PROMPT = "{prompt}"


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

    Steps are tokenized one by one, as they were in training: what a tokenizer would join across their ends stays apart.
    """

    template: str
    step_end: str
    good: str
    chat_options: Mapping[str, Any] = field(default_factory=dict)

    def check(self, tokenizer: Any) -> None:
        """Raise a `ConfigError` unless the tokenizer has what the template needs."""
        if self.template in (CHAT, TURNS):
            TextFormat(CHAT).check(tokenizer)
        elif not tokenizer(self.step_end, add_special_tokens=False, verbose=False)["input_ids"]:
            raise ConfigError(f"step_end {self.step_end!r} has no tokens, and a score is read at its last")

    def encode(
        self, tokenizer: Any, prompt: str | Messages | None, steps: Sequence[str], max_length: int | None
    ) -> EncodedSteps:
        """The tokens, and the places of the scores.

        Raises:
            InputError: The prompt has no place, or the steps alone are too long.
        """
        control = control_tokens_of(tokenizer)
        apart = [control.apart(step) for step in steps]
        plain, set_apart = [text for text, _ in apart], sum(count for _, count in apart)
        if self.template == TURNS:
            ids, places, more = self._turns(tokenizer, prompt, plain)
            kept = 0
        else:
            ids, kept, more = self._opening(tokenizer, prompt)
            places = []
            end = _ids(tokenizer, self.step_end)
            for step in plain:
                ids = [*ids, *_ids(tokenizer, step), *end]
                places.append(len(ids) - 1)
        over = 0 if max_length is None else max(0, len(ids) - max_length)
        room = places[0] - kept
        if over >= room:
            raise InputError(
                f"prompt and steps have {len(ids)} tokens, and the model reads {max_length}; raise max_length",
                field="response",
            )
        # The beginning of the prompt goes, for a step that is not read has no score.
        ids, places = [*ids[:kept], *ids[kept + over :]], [place - over for place in places]
        return EncodedSteps(EncodedText(ids, None, over, set_apart + more), places)

    def _opening(self, tokenizer: Any, prompt: str | Messages | None) -> tuple[list[int], int, int]:
        """The tokens before the first step, how many of them are never cut, and the control tokens set apart."""
        if self.template == CHAT:
            asked: Any = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            options = {**self.chat_options, "add_generation_prompt": True}
            found = TextFormat(CHAT, chat_options=options).encode(tokenizer, None, asked)
            ids, set_apart = found.token_ids, found.set_apart
        else:
            text, set_apart = control_tokens_of(tokenizer).apart(lone_text(prompt) if _PROMPT in self.template else "")
            ids = _ids(tokenizer, self.template.replace(_PROMPT, text))
            first = [token for token in (tokenizer.bos_token_id, tokenizer.cls_token_id) if token is not None][:1]
            ids = [*first, *ids] if ids[:1] != first else ids
        return ids, int(ids[:1] in ([tokenizer.bos_token_id], [tokenizer.cls_token_id])), set_apart

    def _turns(
        self, tokenizer: Any, prompt: str | Messages | None, steps: Sequence[str]
    ) -> tuple[list[int], list[int], int]:
        """A conversation of steps and praise; a score is read where the model would speak."""
        asked, set_apart = control_tokens_of(tokenizer).apart(lone_text(prompt))
        said = [f"{asked} {steps[0]}", *steps[1:]]
        messages: list[dict[str, str]] = []
        openings: list[str] = []
        for text in said:
            messages.append({"role": "user", "content": text})
            openings.append(self._rendered(tokenizer, messages, add_generation_prompt=True))
            messages.append({"role": "assistant", "content": self.good})
        whole = self._rendered(tokenizer, messages)
        ids: list[int] = []
        places: list[int] = []
        done = 0
        for opening in openings:
            if not whole.startswith(opening):
                raise ConfigError(
                    "template='turns' needs a chat template that writes earlier turns as it wrote them at first"
                )
            ids = [*ids, *_ids(tokenizer, whole[done : len(opening)])]
            places.append(len(ids) - 1)
            done = len(opening)
        return [*ids, *_ids(tokenizer, whole[done:])], places, set_apart

    def _rendered(self, tokenizer: Any, messages: list[dict[str, str]], **options: Any) -> str:
        try:
            return str(tokenizer.apply_chat_template(messages, tokenize=False, **{**self.chat_options, **options}))
        except Exception as error:  # templates raise what they like
            raise InputError(f"the chat template refuses the steps: {type(error).__name__}: {error}") from error


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids
