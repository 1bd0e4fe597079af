"""RationalRewards: a judge that gives its reasons, for generated and for edited images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from flux_rewards.chat.content import plain
from flux_rewards.rewards.judges.material import message, text_of
from flux_rewards.rewards.judges.rubric import Aspect, mean_of
from flux_rewards.rewards.judges.sample_judge import SampleJudge
from flux_rewards.rewards.judges.verdicts.scale import Scale
from flux_rewards.rewards.judges.verdicts.sections import read_sections
from flux_rewards.rewards.judges.verdicts.spoken import spoken

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flux_rewards.chat.client import Messages
    from flux_rewards.chat.reply import Reply
    from flux_rewards.data import RewardOutput, Sample
    from flux_rewards.rewards.judges.judge import JudgeOptions

__all__ = ["RationalRewardsEdit", "RationalRewardsT2I", "read_rational"]

_SCALE = Scale(1.0, 4.0)
_MAY_BE_NA = "text_rendering"
_ASPECTS = {
    "text_faithfulness": "Text Faithfulness",
    "image_faithfulness": "Image Faithfulness",
    "physical_quality": "Physical and Visual Quality",
    "text_rendering": "Text Rendering",
}
_DESCRIPTIONS = {
    "text_faithfulness": "how completely and precisely the image does what the instruction asks for: objects, "
    "attributes, counts, relations, style",
    "image_faithfulness": "how well everything that the instruction does not ask to change is kept as in the source: "
    "identity, background, composition",
    "physical_quality": "how plausible anatomy, perspective, light and materials are, and how free of artifacts the "
    "image is",
    "text_rendering": "how legible and how correctly spelled the writing in the image is; N/A where none was asked for "
    "and none is there",
}


def read_rational(text: str, aspects: Sequence[str]) -> dict[str, float | None]:
    r"""The scores of a reply; one that is a little beyond [1, 4] is cut to it, as in the original.

    Raises:
        JudgeError: One is missing or cannot be read.

    Examples:
        >>> reply = "1. Text Faithfulness:\n## Score: 3.5\n2. Physical and Visual Quality:\n## Score: 2"
        >>> read_rational(reply, ["text_faithfulness", "physical_quality"])
        {'text_faithfulness': 3.5, 'physical_quality': 2.0}
    """
    return read_sections(text, {name: _ASPECTS[name] for name in aspects}, _SCALE, may_be_na=[_MAY_BE_NA])


class _RationalRewards(SampleJudge, abstract=True):
    """What both share."""

    bounds = (0.0, 1.0)
    optional_fields: Sequence[str] | None = ()
    example_config: ClassVar[Mapping[str, Any]] = {**SampleJudge.example_config}
    aspects: ClassVar[tuple[str, ...]]

    def __init__(self, vlm_model: str, fields: Sequence[str], **options: Unpack[JudgeOptions]) -> None:
        defaults: dict[str, Any] = {
            "temperature": 0.1,
            "max_tokens": 2048,
            "timeout": 180.0,
            "max_concurrent": 8,
            "max_retries": 5,
        }
        super().__init__(vlm_model, fields=fields, **{**defaults, **options})

    def messages(self, sample: Sample) -> Messages:
        """The instruction, the images and the rubric, in the form that the model was trained on."""
        kind = "generation" if "image_faithfulness" not in self.aspects else "editing"
        instruction = f"User Instruction: {plain(text_of(sample, 'prompt'))}"
        return [
            message(f"You are an expert image {kind} evaluator.", role="system"),
            message(instruction, *self._images(sample), self._rubric()),
        ]

    def read(self, reply: Reply, sample: Sample) -> RewardOutput:  # noqa: ARG002  # the same for all
        """The mean, and the aspects as parts."""
        scores = read_rational(spoken(reply), self.aspects)
        row = mean_of([Aspect(name, "", _SCALE, optional=name == _MAY_BE_NA) for name in self.aspects], scores)
        row.metadata = {"scores": scores}
        return row

    def _images(self, sample: Sample) -> list[Any]:
        raise NotImplementedError

    def _rubric(self) -> str:
        described = "\n".join(
            f"{number}. {_ASPECTS[name]}: {_DESCRIPTIONS[name]}." for number, name in enumerate(self.aspects, 1)
        )
        form = "\n".join(
            f"{number}. {_ASPECTS[name]}:\n## Justification: <why>\n"
            f"## Score: <1.0 to 4.0{' or N/A' if name == _MAY_BE_NA else ''}>"
            for number, name in enumerate(self.aspects, 1)
        )
        return (
            "Judge the result in these aspects, each by itself:\n"
            f"{described}\n\n"
            "The scale of each: 4 = faultless, 3 = small faults that one has to look for, 2 = faults that all see, "
            "1 = failed. First choose the whole number that fits best, then give your reasons, and move it by a "
            "fraction where they ask for it. Then write a refined user request that would avoid the faults.\n\n"
            "Answer in exactly this form:\n"
            f"# Detailed Judgement\n{form}\n# Summary: <one or two sentences>\n# Refined Request: <the request>"
        )


class RationalRewardsT2I(_RationalRewards):
    """The mean of a RationalRewards model's scores for a generated image, in [0, 1].

    ``(mean - 1) / 3`` over Text Faithfulness, Physical and Visual Quality and, where there is writing, Text Rendering,
    each from 1 to 4. The aspects are parts of the result.

    Args:
        vlm_model: The model's name at the endpoint.
        **options: Of every judge; see `Judge`. The defaults are the original's: temperature 0.1, 2,048 tokens, 180 s a
            request, 8 at once, 5 further tries.

    Metadata, beside that of every judge: ``scores``, from 1 to 4.

    Where it differs from the original: a missing aspect, a reply that was cut short and a failed request are errors
    (there: the mean of the rest, or 0.0); ``**Score:** 3.5`` and ``[3.5]`` are read; the rubric is in our own words,
    around the headings that the model was trained on.

    Source: TIGER-Lab, RationalRewards (``TIGER-Lab/RationalRewards-8B-T2I``); Flow-Factory, ``rational_rewards_t2i``.

    Examples:
        >>> RationalRewardsT2I().required_fields
        ('prompt', 'image')
    """

    optional_fields = ()
    aspects = ("text_faithfulness", "physical_quality", "text_rendering")

    def __init__(self, vlm_model: str = "RationalRewards-8B-T2I", **options: Unpack[JudgeOptions]) -> None:
        super().__init__(vlm_model, ("prompt", "image"), **options)

    def _images(self, sample: Sample) -> list[Any]:
        image = self.shown(sample, fields=["image"])[-1]
        return ["You are provided with one image:\n1. Generated Image", image]


class RationalRewardsEdit(_RationalRewards):
    """The mean of a RationalRewards model's scores for an edited image, in [0, 1].

    As `RationalRewardsT2I`, with Image Faithfulness as a further aspect: what was not to change did not. The source is
    the first of the sample's `condition_images`; the prompt is the instruction.

    Args:
        vlm_model: The model's name at the endpoint.
        **options: As for `RationalRewardsT2I`.

    Source: TIGER-Lab, RationalRewards (``TIGER-Lab/RationalRewards-8B-Edit``); Flow-Factory, ``rational_rewards_edit``.

    Examples:
        >>> RationalRewardsEdit().required_fields
        ('prompt', 'condition_images', 'image')
    """

    optional_fields = ()
    aspects = ("text_faithfulness", "image_faithfulness", "physical_quality", "text_rendering")

    def __init__(self, vlm_model: str = "RationalRewards-8B-Edit", **options: Unpack[JudgeOptions]) -> None:
        super().__init__(vlm_model, ("prompt", "condition_images", "image"), **options)

    def _images(self, sample: Sample) -> list[Any]:
        source = self.shown(sample, fields=["condition_images"])[1]
        edited = self.shown(sample, fields=["image"])[-1]
        return ["You are provided with two images:\n1. Source Image", source, "2. Edited Image", edited]
