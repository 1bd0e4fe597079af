"""UnifiedReward: a judge of images, one by one and two by two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from flux_rewards.chat.content import plain
from flux_rewards.rewards.judges.material import Part, message, text_of
from flux_rewards.rewards.judges.pairwise import PairwiseJudge
from flux_rewards.rewards.judges.rubric import Aspect, mean_of
from flux_rewards.rewards.judges.sample_judge import SampleJudge
from flux_rewards.rewards.judges.verdicts.choices import TIE, read_better_image
from flux_rewards.rewards.judges.verdicts.labelled import read_rating
from flux_rewards.rewards.judges.verdicts.scale import Scale
from flux_rewards.rewards.judges.verdicts.spoken import spoken
from flux_rewards.validation import number, one_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flux_rewards.chat.client import Messages
    from flux_rewards.chat.reply import Reply
    from flux_rewards.data import RewardOutput, Sample
    from flux_rewards.rewards.judges.judge import JudgeOptions

__all__ = ["UnifiedReward", "UnifiedRewardPairwise", "read_unified"]

_SCALE = Scale(1.0, 5.0, "/high")
_LABELS = {
    "1.5": {"final": "Final Score"},
    "2.0": {"alignment": "Alignment Score", "coherence": "Coherence Score", "style": "Style Score"},
}


def read_unified(text: str, version: str) -> dict[str, float]:
    """The scores of a reply, from 1 to 5.

    Raises:
        JudgeError: One is missing, or cannot be read.

    Examples:
        >>> read_unified("A fine picture. Final Score: 4.5", "1.5")
        {'final': 4.5}
    """
    found: dict[str, float] = {}
    for name, label in _LABELS[version].items():
        score = read_rating(text, _SCALE, label, labelled=version == "2.0", last=False)
        assert score is not None  # noqa: S101  # for the type checker: "N/A" is not allowed
        found[name] = score
    return found


class UnifiedReward(SampleJudge):
    """UnifiedReward's score of an image for its prompt, ``score / 5``, in [0.2, 1].

    Args:
        vlm_model: The model's name at the endpoint.
        version: ``"1.5"``: one score behind ``Final Score:``; ``"2.0"``: three lines, ``Alignment Score (1-5):``,
            ``Coherence Score (1-5):`` and ``Style Score (1-5):``, of which the mean is taken; they are parts of the
            result.
        weights: Of the three in that mean, such as Pref-GRPO's ``{"alignment": 1.4, "style": 0.7}``; those that are
            not named weigh nothing. None for equal ones.
        **options: Of every judge; see `Judge`.

    Metadata, beside that of every judge: ``scores``, from 1 to 5.

    Where it differs from flow_grpo: the image is sent as it is (there: resized to 512x512), and a reply without a score
    is an error (there: 0.0). The instruction is in our own words, around the phrases that the model was trained on.

    Raises:
        ConfigError: The version or a weight is unknown.

    Source: CodeGoat24, UnifiedReward (``CodeGoat24/UnifiedReward-7b-v1.5``, ``UnifiedReward-2.0-qwen-7b``); flow_grpo.

    Examples:
        >>> UnifiedReward().required_fields, UnifiedReward(version="2.0").bounds
        (('prompt', 'image'), (0.2, 1.0))
    """

    bounds = _SCALE.bounds
    optional_fields: Sequence[str] | None = ()
    example_config: ClassVar[Mapping[str, Any]] = {**SampleJudge.example_config}

    def __init__(
        self,
        vlm_model: str = "UnifiedReward-7b-v1.5",
        version: str = "1.5",
        *,
        weights: Mapping[str, float] | None = None,
        **options: Unpack[JudgeOptions],
    ) -> None:
        super().__init__(vlm_model, fields=("prompt", "image"), **options)
        self.version = one_of(version, "version", self.name, tuple(_LABELS))
        names = tuple(_LABELS[version])
        for name, weight in (weights or {}).items():
            one_of(name, "weights", self.name, names)
            number(weight, f"the weight of {name!r}", self.name, low=0.0)
        if weights is not None and sum(weights.values()) <= 0:
            number(sum(weights.values()), "the sum of weights", self.name, above=0.0)
        self.weights = weights
        self._aspects = [Aspect(name, "", _SCALE, 1.0 if weights is None else weights.get(name, 0.0)) for name in names]

    def messages(self, sample: Sample) -> Messages:
        """The image, and the instruction with the caption."""
        return [message(self.shown(sample, fields=["image"])[-1], self._instruction(sample))]

    def read(self, reply: Reply, sample: Sample) -> RewardOutput:  # noqa: ARG002  # the same for all
        """The score, or the mean of three, which are parts then."""
        scores = read_unified(spoken(reply), self.version)
        row = mean_of(self._aspects, scores)
        row.metadata = {"scores": scores}
        if self.version == "1.5":
            row.parts = {}
        return row

    def _instruction(self, sample: Sample) -> str:
        caption = plain(text_of(sample, "prompt"))
        if self.version == "1.5":
            return (
                "You are given a text caption and an image that was generated from it. Judge the image by two "
                "criteria: its alignment with the caption, that is, whether all objects, attributes and relations are "
                "there and right; and its overall quality, that is, clarity, realism and aesthetic appeal. Give a "
                f"score from 1 to 5 after 'Final Score:'.\nText Caption: [{caption}]"
            )
        return (
            "You are given a text caption and an image that was generated from it. Score the image from 1 to 5 in "
            "three dimensions: alignment with the caption, coherence (is it free of distortions and implausible "
            "parts), and style (is it appealing, and in the style that was asked for). Answer with three lines:\n"
            "Alignment Score (1-5): X\nCoherence Score (1-5): Y\nStyle Score (1-5): Z\n"
            f"Text Caption: [{caption}]"
        )


class UnifiedRewardPairwise(PairwiseJudge):
    """The share of comparisons that an image wins within its group, by a UnifiedReward-Think model; in [0, 1].

    Args:
        vlm_model: The model's name at the endpoint.
        **options: As for `PairwiseJudge` (`both_orders`, `max_pairs`, `seed`) and of every judge (`Judge`).

    The judge is asked which of two images shows the caption better, and ends with "Image 1 is better" or "Image 2 is
    better". Metadata as for `PairwiseJudge`.

    Where it differs from Pref-GRPO: both orders are asked (there: one), each group is compared by its own prompt, the
    rate is not rounded to three decimals, and a reply that says neither is an error (there: a tie).

    Source: CodeGoat24, UnifiedReward-Think (``CodeGoat24/UnifiedReward-Think-7b``); Pref-GRPO.

    Examples:
        >>> UnifiedRewardPairwise(max_pairs=16).required_fields
        ('prompt', 'image')
    """

    optional_fields: Sequence[str] | None = ()
    example_config: ClassVar[Mapping[str, Any]] = {**SampleJudge.example_config}

    def __init__(
        self,
        vlm_model: str = "UnifiedReward-Think-7b",
        *,
        both_orders: bool = True,
        max_pairs: int | None = None,
        seed: int = 0,
        **options: Unpack[JudgeOptions],
    ) -> None:
        options.setdefault("max_tokens", 4096)
        super().__init__(
            vlm_model,
            "Which image shows the caption better?",
            ("prompt", "image"),
            both_orders=both_orders,
            max_pairs=max_pairs,
            seed=seed,
            **options,
        )

    def message_for(self, sample: Sample, one: Sequence[Part], other: Sequence[Part]) -> list[dict[str, Any]]:
        """The messages that ask which of two is better."""
        question = (
            "You are given a caption and two images that were generated from it. Compare them in alignment with the "
            "caption, in coherence and in style, think step by step within <think> and </think>, and then say which is "
            "better, within <answer> and </answer>: exactly 'Image 1 is better' or 'Image 2 is better'.\n"
            f"Text Caption: [{plain(text_of(sample, 'prompt'))}]"
        )
        return [message("Image 1:", one[-1], "Image 2:", other[-1], question)]

    def read(self, reply: Reply) -> float:
        """What the first of two won, by a reply."""
        return {"A": 1.0, "B": 0.0, TIE: 0.5}[read_better_image(spoken(reply))]
