"""Flow-Factory's ``vllm_evaluate``: whether a judge finds an image good."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from flux_rewards.rewards.judges.judge import Judge, JudgeOptions
from flux_rewards.rewards.judges.yes_no import YesNoJudge

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["VLLMEvaluate"]

QUESTION = (
    "As an expert in the quality of images, look at this image. Consider whether it looks natural, whether it is free "
    "of artifacts and distortions, whether it is aesthetically appealing, how rich and sharp its details are, and "
    "whether it is coherent as a whole. Is it an image of high quality? Answer Yes or No."
)


class VLLMEvaluate(YesNoJudge):
    """``sigmoid(logprob(Yes) - logprob(No))`` for a question about the quality of an image, in [0, 1].

    The prompt is not shown to the judge: it is the image alone that is scored.

    Args:
        vlm_model: The model's name at the endpoint.
        question: In our own words, after the five criteria of the original.
        canonicalize: Whether variants of case and space, such as ``yes``, count. As in the original they don't: only
            the tokens ``Yes`` and ``No``.
        **options: Of every judge; see `Judge`.

    Where it differs from the original: the image is sent without loss (the original sends JPEG of quality 75; give
    ``image_format="jpeg"`` for something close); with neither answer among the 20 likeliest tokens, and after failed
    requests, it is an error (the original: 0.0).

    Source: Flow-Factory, ``vllm_evaluate``.

    Examples:
        >>> VLLMEvaluate("Qwen2.5-VL-7B-Instruct").required_fields
        ('image',)
    """

    optional_fields = ()
    example_config: ClassVar = {**Judge.example_config}

    def __init__(
        self, vlm_model: str, question: str = QUESTION, *, canonicalize: bool = False, **options: Unpack[JudgeOptions]
    ) -> None:
        super().__init__(vlm_model, question, merge_variants=canonicalize, min_mass=0.0, **options)
        self.canonicalize = canonicalize
