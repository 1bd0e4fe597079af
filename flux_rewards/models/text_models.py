"""Language models with a head, run over texts of different lengths: classifiers, token classifiers, causal models."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from flux_rewards.errors import WeightsError
from flux_rewards.models.adapters import adapted, base_of
from flux_rewards.models.batches import distinct, length_sorted
from flux_rewards.models.loading import load_transformers
from flux_rewards.models.placement import device_of, dtype_of, mixed_precision
from flux_rewards.shared import shared
from flux_rewards.threads import RenewedLock

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from flux_rewards.models.checkpoint import Checkpoint
    from flux_rewards.models.text_format import EncodedText

__all__ = ["CAUSAL", "SEQUENCE", "TOKEN", "TextModel", "longest_text", "open_text_model", "read_tokenizer"]

T = TypeVar("T")

SEQUENCE = "AutoModelForSequenceClassification"
TOKEN = "AutoModelForTokenClassification"  # noqa: S105  # no password
CAUSAL = "AutoModelForCausalLM"

_TOKENIZERS = (
    *(("tokenizer.json",), ("vocab.json", "merges.txt"), ("vocab.txt",), ("tokenizer.model",), ("spiece.model",)),
    ("sentencepiece.bpe.model",),
)
_HEAD_ROWS = 16384  # of an output matrix at once, in float32
_HEADS = ("score", "classifier", "classifier.out_proj", "classifier.dense", "cls")

# Of this thread, for the model is shared: the rows and positions that the head is asked about; None for all.
_places: ContextVar[tuple[torch.Tensor, torch.Tensor] | None] = ContextVar("places", default=None)


def open_text_model(kind: str, checkpoint: Checkpoint, *, device: str | None, dtype: str) -> TextModel:
    """A language model with its tokenizer, shared with all who name the same.

    Args:
        kind: `SEQUENCE`, `TOKEN` or `CAUSAL`.
        checkpoint: Configuration, weights and tokenizer in transformers' format; or an adapter (LoRA) in peft's, which
            is merged into the model that it names.
        device: See `device_of`.
        dtype: See `dtype_of`.

    Raises:
        WeightsError: It cannot be found, does not fit, or lacks its head: transformers would make one by chance.
        MissingDependencyError: It is an adapter, and peft is not installed.
    """
    place, precision = device_of(device), dtype_of(dtype)
    base = base_of(checkpoint)
    whole = checkpoint if base is None else base
    key = ("text", kind, checkpoint.identity(), whole.identity(), place, precision)

    def make() -> TextModel:
        import transformers  # noqa: PLC0415  # seconds

        auto = getattr(transformers, kind)
        tokenizer = read_tokenizer(checkpoint, whole)  # the smaller part first
        loads = auto if base is None else adapted(auto, checkpoint)
        network = load_transformers(loads, whole, place, precision)
        return TextModel(network, tokenizer, place, precision, checkpoint.label, kind=kind)

    return shared(key, make)


class TextModel:
    """A frozen language model with its own tokenizer; for any number of threads.

    Texts run in batches of similar length, padded on the right, where neither a causal model nor a masked one sees it.
    Heads are summed in float32 whatever the model's precision.

    A classifier made of a decoder reads its score at the last token that is not the padding token of its *config*. So
    that is the token it is padded with. Where the config names none, the tokenizer's own serves, unless that may stand
    in a text, too (the end of a text): then texts run one by one.

    Args:
        network: As transformers makes it; frozen, on its device, and this object's own.
        tokenizer: This object's own, too.
        device: Where the network is.
        dtype: In which its weights are held.
        label: What messages call it.
        kind: Which head it has; see `open_text_model`.

    Attributes:
        longest: The tokens that it can read at most, or None where nobody says.
    """

    def __init__(
        self, network: Any, tokenizer: Any, device: torch.device, dtype: torch.dtype, label: str, *, kind: str
    ) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.device = device
        self.dtype = dtype
        self.label = label
        self.kind = kind
        self.one_at_a_time = RenewedLock()  # tokenizers have settings; and two batches need the memory of two
        size = network.get_input_embeddings().num_embeddings
        if len(tokenizer) > size:
            raise WeightsError(
                f"the tokenizer of {label} has {len(tokenizer)} tokens, the model {size}: it is another model's"
            )
        self._padding = self._padding_of(network.config.get_text_config(), tokenizer, size)
        self.longest = longest_text(network, tokenizer)
        takes = inspect.signature(network.forward).parameters
        self._takes_types = "token_type_ids" in takes
        self._options = {"use_cache": False} if "use_cache" in takes else {}
        _ask_only_places(network, kind)

    @property
    def labels(self) -> dict[int, str]:
        """The labels of a classifier by position, as its configuration names them."""
        return {int(position): str(label) for position, label in self.network.config.id2label.items()}

    @property
    def token_head(self) -> Any:
        """The layer of a sequence classifier that scores any token; a `WeightsError` behind a pooler (encoders)."""
        import torch  # noqa: PLC0415  # loaded already

        head = getattr(self.network, "score", None)
        if not isinstance(head, torch.nn.Linear):
            raise WeightsError(
                f"{self.label} ({type(self.network).__name__}) scores whole texts, and no token; use a sequence "
                "classifier made of a decoder, a token classifier or a causal model"
            )
        return head

    def _padding_of(self, config: Any, tokenizer: Any, size: int) -> int | None:
        """What rows are padded with; None where none may be."""
        padding = config.pad_token_id
        if padding is not None and not 0 <= padding < size:  # -1 in some configurations
            padding = None
        if self.kind != SEQUENCE:
            return next((token for token in (padding, tokenizer.pad_token_id) if token is not None), 0)
        if getattr(config, "summary_type", None) == "last":  # XLNet reads its score at the last token, padding or not
            return None
        if padding is None and tokenizer.pad_token_id != tokenizer.eos_token_id:
            padding = tokenizer.pad_token_id
        config.pad_token_id = padding
        return None if padding is None else int(padding)

    def logits(self, rows: Sequence[EncodedText], *, max_tokens: int) -> torch.Tensor:
        """What a classifier says of each text.

        Args:
            rows: The texts, none of them empty.
            max_tokens: Of a batch, padding included.

        Returns:
            (N, labels), float32, on the CPU.
        """
        import torch  # noqa: PLC0415  # loaded already

        firsts, of_each = distinct([row.key for row in rows])
        rows = [rows[first] for first in firsts]
        batches = self._batches(rows, max_tokens)
        found = [self._run([rows[row] for row in batch]) for batch in batches]
        order = [row for batch in batches for row in batch]
        logits = torch.cat(found).float().cpu()
        return logits[torch.tensor(order).argsort()][of_each]

    def logits_at(
        self,
        rows: Sequence[EncodedText],
        positions: Sequence[Sequence[int]],
        of_row: Callable[[int, torch.Tensor], T],
        *,
        max_tokens: int,
    ) -> list[T]:
        """What a head says at some tokens of each text; nothing is computed for the others.

        Args:
            rows: The texts, none of them empty.
            positions: Of each text, in rising order, one at least.
            of_row: What is kept of a text; called once for those that are the same, with the number of the first and
                (positions, labels or vocabulary), float32, on the model's device. The logits of all texts together may
                be larger than the model.
            max_tokens: Of a batch, padding included.

        Returns:
            What `of_row` returned, for each text.
        """
        import torch  # noqa: PLC0415  # loaded already

        found: dict[int, T] = {}
        firsts, of_each = distinct([(row.key, tuple(at)) for row, at in zip(rows, positions, strict=True)])
        for numbers in self._batches([rows[first] for first in firsts], max_tokens):
            batch = [firsts[number] for number in numbers]
            counts = [len(positions[row]) for row in batch]
            places = (
                torch.tensor([row for row, count in enumerate(counts) for _ in range(count)], device=self.device),
                torch.tensor([place for row in batch for place in positions[row]], device=self.device),
            )
            token = _places.set(places)
            try:
                logits = self._run([rows[row] for row in batch])
            finally:
                _places.reset(token)
            # A head that was not asked through its own module has answered for all.
            asked = logits[0] if logits.shape[:2] == (1, len(places[0])) else logits[places]
            for row, values in zip(batch, asked.float().split(counts), strict=True):
                found[row] = of_row(row, values)
        return [found[firsts[number]] for number in of_each]

    def _batches(self, rows: Sequence[EncodedText], max_tokens: int) -> list[list[int]]:
        lengths = [len(row) for row in rows]
        return length_sorted(lengths, max_tokens if self._padding is not None else 0)

    def _run(self, rows: Sequence[EncodedText]) -> torch.Tensor:
        import torch  # noqa: PLC0415  # loaded already

        width = max(map(len, rows))
        columns = {"input_ids": ([row.token_ids for row in rows], self._padding or 0)}
        columns["attention_mask"] = ([[1] * len(row) for row in rows], 0)
        if self._takes_types and rows[0].token_type_ids is not None:
            columns["token_type_ids"] = ([row.token_type_ids or [] for row in rows], 0)
        inputs = {
            name: torch.tensor([row + [padding] * (width - len(row)) for row in values]).to(self.device)
            for name, (values, padding) in columns.items()
        }
        with (
            self.one_at_a_time,
            torch.inference_mode(mode=False),
            torch.no_grad(),
            mixed_precision(self.device, torch.float32),  # weights are held in `dtype`; no autocast of a caller's
        ):
            network: Any = self.network
            if self.kind == SEQUENCE and _places.get() is not None:
                return self.token_head(network.base_model(**inputs, **self._options)[0])  # type: ignore[no-any-return]
            logits: torch.Tensor = network(**inputs, **self._options).logits
            return logits


def read_tokenizer(checkpoint: Checkpoint, base: Checkpoint) -> Any:
    """The tokenizer of a checkpoint, or of the model that it adapts; transformers makes an empty one of no files."""
    from transformers import AutoTokenizer  # noqa: PLC0415  # seconds

    for holder in (checkpoint, base):
        folder: Path = holder.path()
        if not any(all((folder / file).is_file() for file in files) for files in _TOKENIZERS):
            continue
        try:
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:
            raise WeightsError(
                f"the tokenizer of {holder.label} cannot be read: {type(error).__name__}: {error}"
            ) from error
    raise WeightsError(f"{checkpoint.label} holds no tokenizer; save the one that it was trained with beside it")


def longest_text(network: Any, tokenizer: Any) -> int | None:
    """The smaller of what the positions and the tokenizer allow."""
    limits = [getattr(network.config.get_text_config(), "max_position_embeddings", None), tokenizer.model_max_length]
    embeddings: Any = getattr(getattr(network.base_model, "embeddings", None), "position_embeddings", None)
    padding = getattr(embeddings, "padding_idx", None)
    if limits[0] is not None and padding is not None:
        limits[0] -= padding + 1  # RoBERTa counts positions from behind its padding token
    found = [limit for limit in limits if limit is not None and 0 < limit < 10**9]
    return min(found, default=None)


def _head_of(network: Any) -> Any:
    """The layer that turns hidden states into scores."""
    for name in _HEADS:
        try:
            head = network.get_submodule(name)
        except AttributeError:
            continue
        if type(head).__name__ == "Linear":
            return head
    return None


def _ask_only_places(network: Any, kind: str) -> None:
    """Let the head sum in float32, and answer only for the places that this thread asks about.

    A bfloat16 knows steps of 1/8 at the usual size of a logit; and the logits of all tokens over a vocabulary are the
    largest tensor of a causal model by far.
    """
    import torch  # noqa: PLC0415  # loaded already

    head: Any = network.get_output_embeddings() if kind == CAUSAL else _head_of(network)
    if type(head) is not torch.nn.Linear:
        return
    weight: torch.Tensor = head.weight
    bias: torch.Tensor | None = head.bias

    def part(hidden: torch.Tensor, start: int) -> torch.Tensor:
        rows = slice(start, start + _HEAD_ROWS)
        added = None if bias is None else bias[rows].float()
        return torch.nn.functional.linear(hidden.float(), weight[rows].float(), added)

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        places = _places.get()
        if places is not None and hidden.ndim == 3:
            hidden = hidden[places][None]
        return torch.cat([part(hidden, start) for start in range(0, len(weight), _HEAD_ROWS)], dim=-1)

    vars(head)["forward"] = forward
