"""How a prompt and a response become the tokens that a reward model reads: the same in training and in scoring."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import ConfigError, InputError, brief
from flux_rewards.models.control_tokens import control_tokens_of
from flux_rewards.validation import one_of, whole_number

if TYPE_CHECKING:
    from flux_rewards.data import Messages

__all__ = ["CHAT", "PAIR", "EncodedText", "TextFormat", "lone_text"]

CHAT = "chat"
PAIR = "pair"
_TOKENS = ("bos_token", "eos_token", "sep_token", "cls_token")
_STAND_IN = "\u2063the response\u2063"
_PLACE = re.compile(r"\{(\w*)\}")


@dataclass(frozen=True)
class EncodedText:
    """The tokens of one text.

    Attributes:
        token_ids: As the model reads them, special tokens included.
        token_type_ids: 0 for the prompt, 1 for the response where the tokenizer tells them apart, else None.
        truncated: How many tokens were cut off.
        set_apart: How many control tokens in the texts were made plain text.
    """

    token_ids: list[int]
    token_type_ids: list[int] | None = None
    truncated: int = 0
    set_apart: int = 0

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def key(self) -> Hashable:
        """What a model sees of it."""
        return tuple(self.token_ids), None if self.token_type_ids is None else tuple(self.token_type_ids)


@dataclass(frozen=True)
class TextFormat:
    r"""How a prompt and a response become tokens.

    Args:
        template: ``"chat"``: the tokenizer's own chat template, without a generation prompt, exactly as transformers
            applies it: a text is a message of the user or of the assistant, conversations are taken whole, tool calls
            and all. ``"pair"``: prompt and response as the tokenizer joins two texts (``[CLS] prompt [SEP] response
            [SEP]``), as cross-encoders are trained. Else a text with ``{response}``, and ``{prompt}`` where it has a
            place, such as ``"{prompt}\n{response}"``; ``{bos_token}``, ``{eos_token}``, ``{sep_token}`` and
            ``{cls_token}`` are the tokenizer's own. Other braces are text. TRL's form for plain texts is
            ``"{prompt}{response}{eos_token}"``.
        max_length: Tokens at most, special ones included; None for all.
        cut: Where a longer text loses its tokens: ``"left"``, the beginning, since what a reward model judges stands at
            the end; or ``"right"``. A special token at an end (``<s>``, ``[CLS]``, ``[SEP]``) stays.
        chat_options: For the chat template, such as ``{"enable_thinking": False}``.
        obey_control_tokens: Whether control tokens in prompt and response, such as ``<|im_end|>``, act. By default they
            are text: a policy must not learn to end its own turn and praise itself in the user's name. Where prompts
            come rendered already, set it.

    Special tokens are not doubled: a chat template writes its own, and what a text template writes first or last is not
    added by the tokenizer again.

    Raises:
        ConfigError: An argument cannot be used.

    Does not read images, and asks no model.

    Examples:
        >>> TextFormat("{prompt}\n{response}", max_length=512).uses_prompt
        True
        >>> TextFormat("Q: {} A: {response}")
        Traceback (most recent call last):
        ...
        flux_rewards.errors.ConfigError: template has '{}', write '{prompt}' or '{response}'
    """

    template: str = CHAT
    max_length: int | None = None
    cut: str = "left"
    chat_options: Mapping[str, Any] = field(default_factory=dict)
    obey_control_tokens: bool = False

    def __post_init__(self) -> None:
        given: Any = self.template
        if not isinstance(given, str):
            raise ConfigError(f"template must be 'chat', 'pair' or a text with '{{response}}', found {brief(given)}")
        if given not in (CHAT, PAIR):
            if "{}" in given:
                raise ConfigError("template has '{}', write '{prompt}' or '{response}'")
            if "{response}" not in given:
                raise ConfigError(f"template must be 'chat', 'pair' or have a '{{response}}', found {brief(given)}")
        if self.max_length is not None:
            whole_number(self.max_length, "max_length", "", low=4)
        one_of(self.cut, "cut", "", ("left", "right"))
        if not isinstance(self.chat_options, Mapping):
            raise ConfigError(f"chat_options must be a mapping, found {brief(self.chat_options)}")
        if not isinstance(self.obey_control_tokens, bool):
            raise ConfigError(f"obey_control_tokens must be True or False, found {brief(self.obey_control_tokens)}")

    @property
    def uses_prompt(self) -> bool:
        """Whether the prompt has a place in the text."""
        return self.template in (CHAT, PAIR) or "{prompt}" in self.template

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a JSON file; ``TextFormat(**values)`` makes it again.

        Examples:
            >>> TextFormat(**TextFormat("pair", 128).to_dict()) == TextFormat("pair", 128)
            True
        """
        return {**asdict(self), "chat_options": dict(self.chat_options)}

    def check(self, tokenizer: Any) -> None:
        """Raise a `ConfigError` unless the tokenizer has what the template needs."""
        if self.template == CHAT and not tokenizer.chat_template:
            raise ConfigError(
                "the tokenizer has no chat template; give the format that the model was trained with, such as "
                "template='{prompt}\\n{response}'"
            )
        for name in _PLACE.findall(self.template):
            if name in _TOKENS and getattr(tokenizer, name) is None:
                raise ConfigError(f"template has '{{{name}}}', and the tokenizer has none")

    def encode(
        self,
        tokenizer: Any,
        prompt: str | Messages | None,
        response: str | Messages,
        *,
        tools: Sequence[Any] | None = None,
        response_ids: Sequence[int] | None = None,
        open_end: bool = False,
    ) -> EncodedText:
        """The tokens of one prompt and response.

        Args:
            tokenizer: Of transformers. Not for two threads at once: tokenizers have settings.
            prompt: Text or messages; None where there is none, such as for ``"chat"`` with a whole conversation as
                response.
            response: Text or messages.
            tools: What the policy could call, as the chat template takes them.
            response_ids: The tokens of the response as the policy sampled them, which take the place of those of its
                text; None to tokenize it. They are taken as they are, control tokens and all. Where their last one is
                what the format writes next, such as the end of the turn, it is written once.
            open_end: Whether something follows, so that the tokenizer must not close the text (``</s>``).

        Raises:
            InputError: A text or conversation that the format has no place for.
            ConfigError: As `check`.
        """
        self.check(tokenizer)
        if self.template == PAIR:
            if response_ids is not None:
                raise ConfigError("template='pair' has no place for the tokens of a response; leave them out")
            return self._pair(tokenizer, prompt, response)
        if self.template == CHAT:
            locate = response_ids is not None
            text, span, set_apart = self._conversation(tokenizer, prompt, response, tools, locate=locate)
        else:
            text, span, set_apart = self._filled(tokenizer, prompt, response)
        if response_ids is None:
            return self._tokens(tokenizer, text, None, set_apart, special=self.template != CHAT, open_end=open_end)
        if span is None:
            raise InputError(
                "the chat template does not write the response as it is, so its tokens have no place; score its text",
                field="token_ids",
            )
        return self._around(tokenizer, text[: span[0]], list(response_ids), text[span[1] :], set_apart)

    def text(self, tokenizer: Any, prompt: str | Messages | None, response: str | Messages) -> tuple[str, int]:
        """What `encode` tokenizes, for who writes on behind it, and how many control tokens were set apart.

        Raises:
            InputError: As `encode`.
            ConfigError: As `check`; or the format is a pair of texts.
        """
        self.check(tokenizer)
        if self.template == PAIR:
            raise ConfigError("template='pair' is two texts")
        if self.template == CHAT:
            text, _, set_apart = self._conversation(tokenizer, prompt, response, None, locate=False)
        else:
            text, _, set_apart = self._filled(tokenizer, prompt, response)
        return text, set_apart

    def _around(self, tokenizer: Any, before: str, ids: list[int], after: str, set_apart: int) -> EncodedText:
        """The tokens of a response between those of the text around it."""
        first, last = _ends(tokenizer)
        ahead, behind = (
            tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for text in (before, after)
        )
        added = [] if self.template == CHAT else tokenizer("")["input_ids"]
        ahead = [*(token for token in added if token in first and [token] != ahead[:1]), *ahead]
        behind = [*behind, *(token for token in added if token in last and [token] != behind[-1:])]
        if ids and behind[:1] == ids[-1:]:
            behind = behind[1:]
        return self._cut(tokenizer, [*ahead, *ids, *behind], None, set_apart)

    def _conversation(
        self,
        tokenizer: Any,
        prompt: str | Messages | None,
        response: str | Messages,
        tools: Sequence[Any] | None,
        *,
        locate: bool,
    ) -> tuple[str, tuple[int, int] | None, int]:
        """The rendered text, where the response stands, and how many control tokens were set apart."""
        messages = [*_messages(prompt, "prompt"), *_messages(response, "response")]
        set_apart = 0
        if not self.obey_control_tokens:
            control = control_tokens_of(tokenizer)
            pairs = [control.apart_in(message) for message in messages]
            messages, set_apart = [message for message, _ in pairs], sum(count for _, count in pairs)
        text = self._rendered(tokenizer, messages, tools)
        said = (messages[-1].get("content") or "").strip()
        if not (locate and said):
            return text, None, set_apart
        # Looked for in the text, a short response could be found in the template's own words.
        around = self._rendered(tokenizer, [*messages[:-1], {**messages[-1], "content": _STAND_IN}], tools)
        before, _, after = around.partition(_STAND_IN)
        middle = text[len(before) : len(text) - len(after)]
        kept = text.startswith(before) and text.endswith(after) and middle.strip() == said
        start = len(before) + middle.find(said)
        return text, (start, start + len(said)) if kept else None, set_apart

    def _rendered(self, tokenizer: Any, messages: list[dict[str, Any]], tools: Sequence[Any] | None) -> str:
        try:
            return str(tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, **self.chat_options))
        except Exception as error:  # templates raise what they like, for roles that they don't know
            raise InputError(f"the chat template refuses the conversation: {type(error).__name__}: {error}") from error

    def _filled(
        self, tokenizer: Any, prompt: str | Messages | None, response: str | Messages
    ) -> tuple[str, tuple[int, int], int]:
        """The template with its places filled, where the response stands, and how many were set apart."""
        values = {name: getattr(tokenizer, name) for name in _TOKENS}
        said, set_apart = self._plain(tokenizer, lone_text(response, "response"))
        values["response"] = said
        if self.uses_prompt:
            asked, count = self._plain(tokenizer, lone_text(prompt))
            values["prompt"] = asked
            set_apart += count
        pieces = _PLACE.split(self.template)  # text, name, text, name, ..., text
        text, start = "", 0
        for position, piece in enumerate(pieces):
            if position % 2 == 0:
                text += piece
            else:
                if piece == "response":
                    start = len(text)
                text += values.get(piece, f"{{{piece}}}")
        return text, (start, start + len(said)), set_apart

    def _pair(self, tokenizer: Any, prompt: str | Messages | None, response: str | Messages) -> EncodedText:
        asked, before = self._plain(tokenizer, lone_text(prompt))
        said, count = self._plain(tokenizer, lone_text(response, "response"))
        return self._tokens(tokenizer, asked, said, before + count, special=True)

    def _plain(self, tokenizer: Any, text: str) -> tuple[str, int]:
        return (text, 0) if self.obey_control_tokens else control_tokens_of(tokenizer).apart(text)

    def _tokens(
        self, tokenizer: Any, text: str, other: str | None, set_apart: int, *, special: bool, open_end: bool = False
    ) -> EncodedText:
        found = tokenizer(text, other, add_special_tokens=special, verbose=False)  # what is too long is told below
        ids: list[int] = list(found["input_ids"])
        types = found.get("token_type_ids")
        start, end = 0, len(ids)
        if special and other is None:
            first, last = _ends(tokenizer)
            start += len(ids) > 1 and ids[0] == ids[1] and ids[0] in first
            if open_end:
                end -= bool(last.intersection(tokenizer("")["input_ids"][-1:]))
            else:
                end -= len(ids) > 1 and ids[-1] == ids[-2] and ids[-1] in last
        return self._cut(tokenizer, ids[start:end], None if types is None else list(types)[start:end], set_apart)

    def _cut(self, tokenizer: Any, ids: list[int], types: list[int] | None, set_apart: int) -> EncodedText:
        """What is left of too many tokens: of an end that is cut, a special token stays."""
        over = 0 if self.max_length is None else max(0, len(ids) - self.max_length)
        if over:
            first, last = _ends(tokenizer)
            start = int(ids[0] in first) if self.cut == "left" else len(ids) - int(ids[-1] in last) - over
            ids = [*ids[:start], *ids[start + over :]]
            types = None if types is None else [*types[:start], *types[start + over :]]
        return EncodedText(ids, types, over, set_apart)


def _ends(tokenizer: Any) -> tuple[set[int], set[int]]:
    """The tokens that texts begin with, and those that they end with."""
    first = {tokenizer.bos_token_id, tokenizer.cls_token_id} - {None}
    return first, {tokenizer.eos_token_id, tokenizer.sep_token_id} - {None}


def _messages(given: str | Messages | None, what: str) -> list[dict[str, Any]]:
    """Chat messages, of which each content is one text: chat templates of text models join them."""
    if given is None and what == "prompt":
        return []
    if isinstance(given, str):
        return [{"role": "user" if what == "prompt" else "assistant", "content": given}]
    unknown: Any = given
    if (
        not isinstance(unknown, (list, tuple))
        or not unknown
        or not all(isinstance(entry, Mapping) and isinstance(entry.get("role"), str) for entry in unknown)
    ):
        raise InputError(f"expected text or a list of chat messages, found {brief(given)}", field=what)
    return [_flat(dict(message), what) for message in unknown]


def _flat(message: dict[str, Any], what: str) -> dict[str, Any]:
    content = message.get("content")
    if isinstance(content, (list, tuple)):
        for part in content:
            if not isinstance(part, Mapping) or not isinstance(part.get("text"), str):
                raise InputError(f"the model reads text only, and a message holds {brief(part)}", field=what)
        message["content"] = "".join(part["text"] for part in content)
    elif content is not None and not isinstance(content, str):
        raise InputError(f"the content of a message is text, found {brief(content)}", field=what)
    return message


def lone_text(said: str | Messages | None, field: str = "prompt") -> str:
    """A prompt or response where a format has room for one text: a conversation would silently lose the rest of it.

    Raises:
        InputError: There is none, or it is a conversation of several messages.

    Examples:
        >>> lone_text([{"role": "user", "content": "Why?"}])
        'Why?'
    """
    if isinstance(said, str):
        return said
    if said is None:
        raise InputError(f"the template has a place for the {field}, and there is none", field=field)
    messages = _messages(said, field)
    if len(messages) > 1:
        raise InputError(
            f"the template has room for one text, and the {field} is a conversation of {len(messages)} messages; use "
            "template='chat', or pass text",
            field=field,
        )
    return messages[0].get("content") or ""
