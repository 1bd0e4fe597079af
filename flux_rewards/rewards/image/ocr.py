"""Whether an image shows the text that it was asked to show."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import PIL.Image

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.callables import resolve_callable
from flux_rewards.data import RewardOutput
from flux_rewards.errors import ConfigError, ContractError, InputError, MissingDependencyError, brief
from flux_rewards.rewards.text.edit_distance import edit_distance
from flux_rewards.shared import shared
from flux_rewards.threads import RenewedLock

if TYPE_CHECKING:
    from PIL import Image
    from typing_extensions import Unpack

    from flux_rewards.data import Sample

__all__ = ["OCRReward"]

_QUOTE = '"\u201c\u201d\u201e\u201f\u00ab\u00bb\uff02'  # straight, English, German, French and full-width ones
_QUOTED = re.compile(f"[{_QUOTE}]([^{_QUOTE}]*)[{_QUOTE}]")
_BUILT_IN = "rapidocr"
_NARROWEST = 4  # sides, long to short, that the built-in recogniser is given


class OCRReward(RewardFunction):
    """How much of a text an image shows: 1.0 where it is found whole, falling by the letters that differ.

    ``1 - min(d, n) / n``, where n is the length of the wanted text; d is 0 where that text stands anywhere in what was
    recognised, else the Levenshtein distance between the two. Both are compared in lower case and without whitespace.

    The wanted text is the sample's `reference` where it has one, else what stands in the prompt between the first two
    double quotes, straight or typographic. Where there is none, or it is empty, the reward does not apply (None).

    Args:
        recognizer: ``"rapidocr"``: PP-OCRv6 (small) by onnxruntime on the CPU, from the extra ``ocr``, with the models
            in its package: no download. Or any callable from a PIL image (RGB) to the text on it, or its dotted path,
            such as ``"my_package.ocr.read"``: a vision language model, a service, PaddleOCR. Lines may be separated
            by any whitespace; no text is ``""``.
        **options: Of every reward; see `RewardFunction`. `num_workers` is for recognisers that take several calls at
            once; the built-in one takes one at a time, however many rewards and threads share it.

    Bounds: (0, 1). Metadata: ``recognized``, the text as it was read, and ``target``.

    Raises:
        ConfigError: `recognizer` is neither callable nor a dotted path.
        MissingDependencyError: At the first call: the extra is not installed.
        InputError: The sample has neither prompt nor reference, or a reference that is no text.
        ContractError: The recogniser returned something else than text.
        ComputeError: The recogniser raised; that is a failure of the sample, never a low score.

    Scores depend on the recogniser: flow_grpo and Flow-Factory, whose formula this is, use PaddleOCR's larger models.
    Text that is recognised beside the wanted one costs nothing where that is found whole, else it counts as letters to
    delete. Does not look at style, place or how often the text is shown. Source of the formula: Liu et al. 2025,
    Flow-GRPO (arXiv 2505.05470).

    Examples:
        >>> def read(image):
        ...     return "OPEN  DIALY"
        >>> import numpy as np
        >>> image = np.zeros((8, 8, 3), dtype=np.uint8)
        >>> OCRReward(read)(
        ...     prompt=['A sign: "Open".', 'A sign: “Open Daily”.', "A sign."], image=[image] * 3).rewards.round(3)
        array([1.   , 0.778,   nan])
    """

    required_fields = ("image",)
    optional_fields = ("prompt", "reference")
    bounds = (0.0, 1.0)
    media_form = "pil"
    example_config: ClassVar[Mapping[str, Any]] = {"recognizer": _BUILT_IN}
    _held: Callable[[Image.Image], Any] | None = None

    def __init__(
        self, recognizer: Callable[[Image.Image], str] | str = _BUILT_IN, **options: Unpack[RewardOptions]
    ) -> None:
        super().__init__(**options)
        dotted = isinstance(recognizer, str) and (recognizer == _BUILT_IN or "." in recognizer or ":" in recognizer)
        if not dotted and (isinstance(recognizer, str) or not callable(recognizer)):
            raise ConfigError(
                f"recognizer must be 'rapidocr', a callable from image to text, or its dotted path such as "
                f"'my_package.ocr.read', found {brief(recognizer)}",
                reward=self.name,
            )
        self.recognizer = recognizer

    @property
    def decided_by(self) -> Sequence[Any]:  # type: ignore[override]  # not an author's choice here
        """The recogniser: its code, or the version of the built-in one."""
        if self.recognizer == _BUILT_IN:
            return [_BUILT_IN, _installed_version()]
        return [resolve_callable(self.recognizer, self.name)]

    def load(self) -> None:
        """Open the recogniser; of those given, nothing is known that could be opened ahead."""
        self._read()

    def close(self) -> None:
        """Let go of the recogniser: the built-in one leaves memory when nobody else uses it."""
        self._held = None

    def compute_reward(self, sample: Sample) -> RewardOutput | None:
        """One score."""
        wanted = _wanted(sample)
        target = _folded(wanted)
        if not target:
            return None
        recognized = self._read()(sample.image)
        if not isinstance(recognized, str):
            raise ContractError(
                f"the recognizer must return the text on the image as a str, '' for none, found {brief(recognized)}"
            )
        return RewardOutput(
            _likeness(target, _folded(recognized)), metadata={"recognized": recognized, "target": wanted}
        )

    def _read(self) -> Callable[[Image.Image], Any]:
        found = self._held
        if found is None:  # several threads at once get the same one
            built_in = self.recognizer == _BUILT_IN
            found = shared(_BUILT_IN, _RapidOCR) if built_in else resolve_callable(self.recognizer, self.name)
            self._held = found
        return found


def _wanted(sample: Sample) -> str:
    """The text that the image should show; empty where nothing is asked for."""
    if sample.reference is not None:
        if isinstance(sample.reference, str):
            return sample.reference
        raise InputError(f"expected the text to show, found {brief(sample.reference)}", field="reference")
    if sample.prompt is None:
        raise InputError(
            "expected a prompt with the text to show between double quotes, or that text as reference; found neither",
            field="prompt",
        )
    quoted = _QUOTED.search(sample.prompt_text)
    return quoted[1] if quoted else ""


def _folded(text: str) -> str:
    return "".join(text.split()).lower()


def _likeness(target: str, recognized: str) -> float:
    if target in recognized:
        return 1.0
    return 1.0 - min(edit_distance(target, recognized), len(target)) / len(target)


def _installed_version() -> str:
    try:
        return importlib.metadata.version(_BUILT_IN)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _not_too_narrow(image: Image.Image) -> Image.Image:
    """White beside a narrow strip: it is enlarged until its short side is long enough, whatever the other becomes."""
    size = tuple(max(side, -(-max(image.size) // _NARROWEST)) for side in image.size)
    if size == image.size:
        return image
    wider = PIL.Image.new("RGB", (size[0], size[1]), "white")
    wider.paste(image)
    return wider


class _RapidOCR:
    """The recogniser that comes with the package, one call at a time, without its log."""

    def __init__(self) -> None:
        try:
            import onnxruntime  # noqa: F401, PLC0415  # an extra; rapidocr finds out at the first image only
            import rapidocr  # noqa: PLC0415
        except ImportError as error:
            raise MissingDependencyError(
                f"text is recognised by rapidocr and onnxruntime, which cannot be imported ({error}): pip install "
                '"flux_rewards[ocr]", or give a recognizer of your own'
            ) from error
        self._lock = RenewedLock()
        self._logger = logging.getLogger("RapidOCR")
        level = self._logger.level
        self._engine: Any = rapidocr.RapidOCR()
        self._logger.setLevel(level)  # it sets that of all who use it in this process
        blank = np.full((64, 64, 3), 255, dtype=np.uint8)
        with self._silenced():  # its three networks are read as they are needed: now, so that `load` is all
            self._engine(blank, use_det=False)
            self._engine(blank, use_det=True)  # stays so

    def __call__(self, image: Image.Image) -> str:
        with self._lock, self._silenced():
            lines = self._engine(_not_too_narrow(image)).txts
        return "\n".join(lines or ())

    @contextlib.contextmanager
    def _silenced(self) -> Iterator[None]:
        """It warns of every image without text; only what this thread makes it say is dropped."""
        thread = threading.get_ident()

        def others(record: logging.LogRecord) -> bool:
            return record.thread != thread

        self._logger.addFilter(others)
        try:
            yield
        finally:
            self._logger.removeFilter(others)
