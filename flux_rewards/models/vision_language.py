"""Chat models that see images, asked for the probability of an answer."""

from __future__ import annotations

import inspect
import re
import weakref
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import ConfigError, ContractError, InputError, WeightsError
from flux_rewards.models.loading import load_transformers
from flux_rewards.models.placement import device_of, dtype_of, mixed_precision
from flux_rewards.shared import shared
from flux_rewards.threads import RenewedLock

if TYPE_CHECKING:
    import torch

    from flux_rewards.models.checkpoint import Checkpoint

__all__ = ["VisionLanguageModel", "open_vision_language"]

_HEAD_ROWS = 16384  # of the output matrix at once, in float32: 0.2 GB for a model of 7B
_BRACKETED = re.compile(r"[<\[{|].*[>\]}|]", re.DOTALL)

# Of this thread, for the model is shared: whether layers forget their activations.
_recomputing: ContextVar[bool] = ContextVar("recomputing", default=False)


def open_vision_language(checkpoint: Checkpoint, *, device: str | None, dtype: str) -> VisionLanguageModel:
    """The chat model of a checkpoint in transformers' format, shared with all who name the same.

    Args:
        checkpoint: Configuration, weights, tokenizer, chat template and the preprocessing of images.
        device: See `device_of`.
        dtype: See `dtype_of`.

    Raises:
        WeightsError: It cannot be found, does not fit, sees no images, or has no chat template.
    """
    place, precision = device_of(device), dtype_of(dtype)

    def make() -> VisionLanguageModel:
        from transformers import AutoModelForImageTextToText  # noqa: PLC0415  # seconds

        processor = _load_processor(checkpoint)  # the smaller part first, so that an unsuited checkpoint is told soon
        network = load_transformers(AutoModelForImageTextToText, checkpoint, place, precision, trust_remote_code=False)
        return VisionLanguageModel(network, processor, place, precision, checkpoint.label)

    return shared(("vision language", checkpoint.identity(), place, precision), make)


class VisionLanguageModel:
    """A frozen chat model with its own tokenizer, chat template and image preprocessing; for any number of threads.

    Rows of a batch are padded on the left, so all end at the same place and only that is turned into logits. These are
    summed and kept in float32 whatever the model's precision: bfloat16 knows steps of 1/8 at the usual size of a logit,
    13 % of a probability.

    Args:
        network: As ``AutoModelForImageTextToText`` makes it; frozen, on its device. It must be this object's own: its
            output layer and the layers that can recompute are given another `forward`.
        processor: As ``AutoProcessor`` makes it; this object's own, too.
        device: Where the network is.
        dtype: In which its weights are held.
        label: What messages call it.
    """

    def __init__(self, network: Any, processor: Any, device: torch.device, dtype: torch.dtype, label: str) -> None:
        self.network = network
        self.processor = processor
        self.tokenizer: Any = processor.tokenizer
        self.device = device
        self.dtype = dtype
        self.label = label
        self._one_at_a_time = RenewedLock()  # tokenizers have settings; and two batches need the memory of two
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token  # masked, so any will do
        template = str(processor.chat_template or self.tokenizer.chat_template)
        self._template_options = {"enable_thinking": False} if "enable_thinking" in template else {}
        self._control = _control_tokens(processor, template)
        found = self.tokenizer.convert_tokens_to_ids(self._control)
        self._control_ids = dict(zip(found, self._control, strict=True))
        self._control_ids.pop(self.tokenizer.unk_token_id, None)  # unknown characters are text
        self._control_pattern = re.compile("|".join(map(re.escape, self._control)) or "(?!)")
        self._takes_tensors = getattr(processor.image_processor, "backend", None) == "torchvision"
        self._keeps_few = "logits_to_keep" in inspect.signature(network.forward).parameters
        if self._takes_tensors:
            processor.image_processor.resize = _clamped(processor.image_processor.resize)
        _make_recomputable(network)
        _sum_logits_in_float32(network)

    def token_ids(self, answer: str) -> list[int]:
        """The tokens of an answer, at the beginning of the model's turn.

        Raises:
            ConfigError: It is empty, or the model has no tokens for it.
        """
        with self._one_at_a_time:
            ids: list[int] = self.tokenizer(answer, add_special_tokens=False)["input_ids"]
        if not ids or self.tokenizer.unk_token_id in ids or self._control_ids.keys() & set(ids):
            raise ConfigError(f"{self.label} has no tokens for the answer {answer!r}; choose a word that it knows")
        return ids

    def plain(self, text: str) -> str:
        """The text, with nothing in it that the tokenizer or the processor would obey.

        What they would read as a control token, such as the end of a turn or the place of an image, is set apart by a
        space after its first character: ``<|im_end|>`` becomes ``< |im_end|>``.

        Raises:
            InputError: There is one that cannot be set apart.
        """
        text = self._control_pattern.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
        with self._one_at_a_time:
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        for token_id in ids:  # the tokenizer has the last word: it may normalise before it looks for tokens
            if token_id in self._control_ids:
                raise InputError(
                    f"the text holds something that {self.label} reads as its control token "
                    f"{self._control_ids[token_id]!r}; take it out",
                    field="prompt",
                )
        return text

    def logits(
        self, images: Sequence[torch.Tensor], questions: Sequence[str], answer: Sequence[int] = ()
    ) -> torch.Tensor:
        """What the model would say to a question about an image, without a gradient.

        Args:
            images: (3, H, W) each, uint8 or float in [0, 1], of any sizes.
            questions: One an image, as `plain` returns them.
            answer: The tokens that the model has said already; nothing by default.

        Returns:
            (N, len(answer) + 1, vocabulary), float32, on the model's device: of the token that comes first, and of the
            one after each of `answer`. One forward pass, or two where some images are uint8 and others are not.
        """
        import torch  # noqa: PLC0415  # loaded already

        # 8-bit pixels are resized as 8-bit pixels, like those of a PIL image: neighbours don't change that.
        kinds = [image.is_floating_point() for image in images]
        parts: dict[int, torch.Tensor] = {}
        with self._one_at_a_time, torch.inference_mode(mode=False), torch.no_grad():
            for kind in sorted(set(kinds)):
                rows = [row for row, found in enumerate(kinds) if found == kind]
                inputs = self._inputs([images[row] for row in rows], [questions[row] for row in rows], answer)
                parts.update(zip(rows, self._run(inputs, len(answer) + 1), strict=True))
        return torch.stack([parts[row] for row in range(len(images))])

    def logits_with_gradient(
        self, pixels: torch.Tensor, questions: Sequence[str], answer: Sequence[int] = (), *, checkpointing: bool = False
    ) -> torch.Tensor:
        """As `logits`, with a gradient to the pixels (N, 3, H, W), float in [0, 1].

        Args:
            pixels: On any device.
            questions: As for `logits`.
            answer: As for `logits`.
            checkpointing: Each layer keeps its input only, and computes the rest again for the gradient.

        Raises:
            ContractError: The checkpoint's image processor does not pass a gradient on.
        """
        import torch  # noqa: PLC0415  # loaded already

        with self._one_at_a_time:
            inputs = self._inputs(list(pixels.float()), questions, answer)
        if torch.is_grad_enabled() and pixels.requires_grad and not inputs["pixel_values"].requires_grad:
            raise ContractError(
                f"no gradient reaches the pixels: {type(self.processor.image_processor).__name__}, the image processor "
                f"of {self.label}, works outside of torch; install torchvision, or choose a model whose image "
                "processor is made for it"
            )
        token = _recomputing.set(checkpointing)
        try:
            return self._run(inputs, len(answer) + 1)
        finally:
            _recomputing.reset(token)

    def _run(self, inputs: dict[str, Any], last: int) -> torch.Tensor:
        import torch  # noqa: PLC0415  # loaded already

        few = {"logits_to_keep": last} if self._keeps_few else {}
        with mixed_precision(self.device, torch.float32):  # weights are held in `dtype`; no autocast of a caller's
            found: torch.Tensor = self.network(**inputs, use_cache=False, **few).logits
        return found[:, -last:].float()

    def _inputs(self, images: list[torch.Tensor], questions: Sequence[str], answer: Sequence[int]) -> dict[str, Any]:
        """What the network takes, on its device: N rows, padded on the left."""
        texts = [self._turn(question) for question in questions]
        bos = self.tokenizer.bos_token
        images = [image.to(self.device) if self._takes_tensors else image.detach().cpu() for image in images]
        batch = self.processor(
            images=[[image] for image in images],
            text=texts,
            padding=True,
            return_tensors="pt",
            # A template may begin with the token that the tokenizer puts first.
            add_special_tokens=not (bos and texts[0].startswith(bos)),
            images_kwargs={"do_rescale": not images[0].is_floating_point(), "input_data_format": "channels_first"},
        )
        shape = batch["input_ids"].shape
        inputs: dict[str, Any] = {}
        for name, value in batch.items():
            tensor = value.to(self.device)
            if tensor.is_floating_point():
                tensor = tensor.to(self.dtype)
            elif tensor.shape == shape and answer:
                tensor = _extended(tensor, name, answer)
            inputs[name] = tensor
        return inputs

    def _turn(self, question: str) -> str:
        """The conversation up to where the model speaks."""
        content = [{"type": "image"}, {"type": "text", "text": question}]
        turn: str = self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=False,
            **self._template_options,
        )
        return turn


def _load_processor(checkpoint: Checkpoint) -> Any:
    import transformers  # noqa: PLC0415

    auto: Any = transformers.AutoProcessor
    try:
        processor = auto.from_pretrained(checkpoint.path(), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise WeightsError(f"the processor of {checkpoint.label} cannot be loaded: {first}") from error
    if getattr(processor, "image_processor", None) is None or getattr(processor, "tokenizer", None) is None:
        raise WeightsError(f"{checkpoint.label} has a {type(processor).__name__}, and no processor of images and text")
    if not (processor.chat_template or processor.tokenizer.chat_template):
        raise WeightsError(f"{checkpoint.label} has no chat template; name a model that was trained to chat")
    return processor


def _control_tokens(processor: Any, template: str) -> list[str]:
    """What the tokenizer or the processor obeys, the longest first.

    All that is marked special; what the processor replaces; and markup of the chat template that has a token, though
    it is not marked: words and blanks with a token of their own stay words and blanks.
    """
    tokenizer = processor.tokenizer
    added = tokenizer.added_tokens_decoder.values()
    found = {token.content for token in added if token.special}
    found |= {token.content for token in added if token.content in template and _BRACKETED.fullmatch(token.content)}
    found |= {value for name, value in vars(processor).items() if name.endswith("_token") and isinstance(value, str)}
    found |= set(tokenizer.all_special_tokens)
    return sorted((token for token in found if token.strip()), key=len, reverse=True)


def _extended(tensor: torch.Tensor, name: str, answer: Sequence[int]) -> torch.Tensor:
    """One of the tensors (N, length), with the answer's tokens: seen, and of the type of text."""
    import torch  # noqa: PLC0415  # loaded already

    values = list(answer) if name == "input_ids" else [int(name == "attention_mask")] * len(answer)
    return torch.cat([tensor, tensor.new_tensor(values).expand(len(tensor), -1)], dim=1)


def _clamped(resize: Callable[..., Any]) -> Callable[..., Any]:
    """Cuts what bicubic overshoots in floats in [0, 1], as a resize of 8-bit pixels does."""

    def within(*args: Any, **kwargs: Any) -> Any:
        resized = resize(*args, **kwargs)
        return resized.clamp(0, 1) if resized.is_floating_point() else resized

    return within


def _recomputable(forward: Callable[..., Any]) -> Callable[..., Any]:
    def recomputed(*args: Any, **kwargs: Any) -> Any:
        import torch  # noqa: PLC0415  # loaded already
        from torch.utils.checkpoint import checkpoint  # noqa: PLC0415

        if not (_recomputing.get() and torch.is_grad_enabled()):
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return recomputed


def _make_recomputable(network: Any) -> None:
    """Let every layer recompute its activations where a thread asks for it.

    transformers' own gradient checkpointing acts in training mode only, and for all threads.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer  # noqa: PLC0415

    layers = [module for module in network.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers or [network]:
        own, held = type(layer).forward, weakref.ref(layer)  # no cycle: weights leave memory with their last user
        vars(layer)["forward"] = _recomputable(lambda *args, own=own, held=held, **kwargs: own(held(), *args, **kwargs))


def _sum_logits_in_float32(network: Any) -> None:
    import torch  # noqa: PLC0415  # loaded already

    head = network.get_output_embeddings()
    if type(head) is not torch.nn.Linear or head.weight.dtype == torch.float32:
        return
    weight: torch.Tensor = head.weight
    bias: torch.Tensor | None = head.bias

    def part(hidden: torch.Tensor, start: int) -> torch.Tensor:
        rows = slice(start, start + _HEAD_ROWS)
        added = None if bias is None else bias[rows].float()
        return torch.nn.functional.linear(hidden.float(), weight[rows].float(), added)

    in_parts = _recomputable(part)  # else the gradient keeps a float32 copy of the whole matrix

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        return torch.cat([in_parts(hidden, start) for start in range(0, len(weight), _HEAD_ROWS)], dim=-1)

    vars(head)["forward"] = forward
