"""Two towers, of images and of texts, whose unit features are compared: CLIP and its successors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from flux_rewards.models.features import ImageEncoder
from flux_rewards.models.placement import mixed_precision

if TYPE_CHECKING:
    import torch

    from flux_rewards.models.preprocessing import Preprocessing

__all__ = ["DualEncoder", "Text"]

_KEPT_TEXTS = 4096  # some 16 MB of features: the prompts of several steps
_TEXT_BATCH = 64


class Text(NamedTuple):
    """A prompt as the model takes it.

    Attributes:
        feature: (D,), float32, of length 1, on the CPU.
        tokens_cut: How many of its tokens did not fit.
    """

    feature: torch.Tensor
    tokens_cut: int


class DualEncoder(ImageEncoder):
    """An image tower and a text tower. Each distinct text is encoded once and kept, the least recently used dropped.

    Args:
        module: As for `ImageEncoder`.
        preprocessing: As for `ImageEncoder`.
        device: As for `ImageEncoder`.
        dtype: As for `ImageEncoder`.
        width: As for `ImageEncoder`.
        logit_scale: What the cosine is multiplied by, after ``exp``; 100 for most.

    A subclass overrides `tower`, `text_tower` and `tokenize`.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        preprocessing: Preprocessing,
        device: torch.device,
        dtype: torch.dtype,
        *,
        width: int,
        logit_scale: float,
    ) -> None:
        super().__init__(module, preprocessing, device, dtype, width=width)
        self.logit_scale = logit_scale
        self._texts: OrderedDict[str, Text] = OrderedDict()

    def tokenize(self, texts: Sequence[str]) -> tuple[dict[str, torch.Tensor], list[int]]:
        """What `text_tower` takes, and how many tokens of each text did not fit."""
        raise NotImplementedError

    def text_tower(self, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
        """(N, D), of any precision, not normalised."""
        raise NotImplementedError

    def texts(self, texts: Sequence[str]) -> list[Text]:
        """Unit features of texts, without a gradient."""
        with self._one_at_a_time:
            unknown = [text for text in dict.fromkeys(texts) if text not in self._texts]
            known = {text: self._texts[text] for text in dict.fromkeys(texts) if text in self._texts}
            for start in range(0, len(unknown), _TEXT_BATCH):
                known.update(self._encoded(unknown[start : start + _TEXT_BATCH]))
            for text, encoded in known.items():
                self._texts[text] = encoded
                self._texts.move_to_end(text)
            while len(self._texts) > _KEPT_TEXTS:
                self._texts.popitem(last=False)
        return [known[text] for text in texts]

    def _encoded(self, texts: Sequence[str]) -> dict[str, Text]:
        import torch  # noqa: PLC0415  # loaded already

        tokens, cut = self.tokenize(texts)
        with torch.inference_mode(mode=False), torch.no_grad(), mixed_precision(self.device, self.dtype):
            features = self.text_tower({name: ids.to(self.device) for name, ids in tokens.items()})
            features = torch.nn.functional.normalize(features.float(), dim=-1).cpu()
        return {text: Text(feature, lost) for text, feature, lost in zip(texts, features, cut, strict=True)}
