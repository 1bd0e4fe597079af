"""Rewards by name: the library's own, those registered in code, those of installed plugins, and dotted paths."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from flux_rewards.base import RewardFunction
from flux_rewards.callables import resolve_path
from flux_rewards.errors import ConfigError, UnknownRewardError, brief, close_match

__all__ = [
    "ENTRY_POINTS",
    "list_rewards",
    "name_of",
    "register_reward",
    "register_reward_model",
    "resolve_reward",
]

ENTRY_POINTS = "flux_rewards.rewards"
"""Entry point group of plugins: ``[project.entry-points."flux_rewards.rewards"]  my_reward = "my_pkg:MyReward"``."""

Factory = Callable[..., RewardFunction]
F = TypeVar("F", bound=Factory)

# Strings, so that a reward and what it needs are imported when it is asked for.
_BUILTIN: dict[str, str] = {
    "aesthetic_score": "flux_rewards.rewards.image.aesthetic:AestheticScore",
    "batched": "flux_rewards.wrappers.batched:Batched",
    "best_of_group": "flux_rewards.groups:BestOfGroup",
    "bleu": "flux_rewards.rewards.text.bleu:BLEUReward",
    "cached": "flux_rewards.wrappers.cached:Cached",
    "calibrated": "flux_rewards.training.calibrated:Calibrated",
    "chrf": "flux_rewards.rewards.text.bleu:ChrFReward",
    "circuit_breaker": "flux_rewards.wrappers.circuit_breaker:CircuitBreaker",
    "classifier": "flux_rewards.rewards.learned.classifier:ClassifierReward",
    "CLIP": "flux_rewards.rewards.image.clip_score:CLIPScore",
    "clip_score": "flux_rewards.rewards.image.clip_score:CLIPScore",
    "clip_value": "flux_rewards.transforms:Clip",
    "code_format": "flux_rewards.rewards.text.code_format:CodeFormat",
    "composite": "flux_rewards.composite:CompositeReward",
    "cosine_length": "flux_rewards.rewards.text.length_schedules:CosineLength",
    "discounted": "flux_rewards.rewards.tokens.converters:Discounted",
    "distinct_n": "flux_rewards.rewards.text.repetition:DistinctNGrams",
    "edit_similarity": "flux_rewards.rewards.text.edit_similarity:EditSimilarity",
    "ensemble": "flux_rewards.rewards.learned.ensemble:EnsembleReward",
    "exact_match": "flux_rewards.rewards.text.exact:ExactMatch",
    "face_similarity": "flux_rewards.rewards.image.face_similarity:FaceSimilarity",
    "format": "flux_rewards.rewards.text.format:FormatReward",
    "frame_consistency": "flux_rewards.rewards.video.consistency:FrameConsistency",
    "function": "flux_rewards.rewards.function:FunctionReward",
    "gate": "flux_rewards.composite:Gate",
    "generative_score": "flux_rewards.rewards.learned.generative_score:GenerativeScore",
    "group_center": "flux_rewards.groups:GroupCenter",
    "group_diversity": "flux_rewards.rewards.text.diversity:GroupDiversity",
    "group_length": "flux_rewards.rewards.text.length_schedules:GroupLength",
    "group_normalize": "flux_rewards.groups:GroupNormalize",
    "group_rank": "flux_rewards.groups:GroupRank",
    "HPSv2": "flux_rewards.rewards.image.hps:HPSv2",
    "image_reward": "flux_rewards.rewards.image.image_reward:ImageReward",
    "image_similarity": "flux_rewards.rewards.image.similarity:ImageSimilarity",
    "ImageReward": "flux_rewards.rewards.image.image_reward:ImageReward",
    "in_process": "flux_rewards.workers.in_process:InProcess",
    "jpeg_compressibility": "flux_rewards.rewards.image.jpeg:JPEGCompressibility",
    "jpeg_incompressibility": "flux_rewards.rewards.image.jpeg:JPEGIncompressibility",
    "json": "flux_rewards.rewards.text.json_format:JSONFormat",
    "json_match": "flux_rewards.rewards.text.json_match:JSONMatch",
    "keyword": "flux_rewards.rewards.text.keyword:KeywordReward",
    "language": "flux_rewards.rewards.text.language:LanguageReward",
    "last_token": "flux_rewards.rewards.tokens.converters:LastToken",
    "leave_one_out": "flux_rewards.groups:LeaveOneOut",
    "length": "flux_rewards.rewards.text.length:LengthReward",
    "length_range": "flux_rewards.rewards.text.length:LengthRange",
    "list_match": "flux_rewards.rewards.text.list_match:ListMatch",
    "map": "flux_rewards.transforms:Map",
    "mask_errors": "flux_rewards.wrappers.mask_errors:MaskErrors",
    "math": "flux_rewards.rewards.text.math:MathReward",
    "motion_amount": "flux_rewards.rewards.video.motion:MotionAmount",
    "multiple_choice": "flux_rewards.rewards.text.multiple_choice:MultipleChoice",
    "normalize": "flux_rewards.transforms:Normalize",
    "numeric_answer": "flux_rewards.rewards.text.numeric:NumericAnswerReward",
    "ocr": "flux_rewards.rewards.image.ocr:OCRReward",
    "pairwise_judge": "flux_rewards.rewards.judges.pairwise:PairwiseJudge",
    "pick_score": "flux_rewards.rewards.image.pick_score:PickScore",
    "pick_score_rank": "flux_rewards.rewards.image.pick_score:pick_score_rank",
    "PickScore": "flux_rewards.rewards.image.pick_score:PickScore",
    "PickScore_Rank": "flux_rewards.rewards.image.pick_score:pick_score_rank",
    "potential": "flux_rewards.rewards.tokens.converters:PotentialShaping",
    "process_reward": "flux_rewards.rewards.learned.process_reward:ProcessReward",
    "product": "flux_rewards.composite:Product",
    "ranking_judge": "flux_rewards.rewards.judges.ranking:RankingJudge",
    "rating_judge": "flux_rewards.rewards.judges.rating:RatingJudge",
    "rational_rewards_edit": "flux_rewards.rewards.judges.rational_rewards:RationalRewardsEdit",
    "rational_rewards_t2i": "flux_rewards.rewards.judges.rational_rewards:RationalRewardsT2I",
    "reasoning_steps": "flux_rewards.rewards.text.reasoning_steps:ReasoningSteps",
    "regex": "flux_rewards.rewards.text.regex:RegexReward",
    "remote": "flux_rewards.remote.remote_reward:RemoteReward",
    "repetition_penalty": "flux_rewards.rewards.text.repetition:RepetitionPenalty",
    "response_length": "flux_rewards.rewards.text.length:ResponseLength",
    "retry": "flux_rewards.wrappers.retry:Retry",
    "reward_model": "flux_rewards.rewards.learned.reward_model:RewardModelReward",
    "rouge": "flux_rewards.rewards.text.rouge:ROUGEReward",
    "rubric_judge": "flux_rewards.rewards.judges.rubric:RubricJudge",
    "scale": "flux_rewards.transforms:Scale",
    "sections": "flux_rewards.rewards.text.sections:SectionsReward",
    "sentiment": "flux_rewards.rewards.learned.classifier:SentimentReward",
    "soft_overlong": "flux_rewards.rewards.text.overlong:SoftOverlongPunishment",
    "spread": "flux_rewards.rewards.tokens.converters:Spread",
    "step_rewards": "flux_rewards.rewards.tokens.steps:StepRewards",
    "tag_count": "flux_rewards.rewards.text.tag_count:TagCount",
    "temporal_flicker": "flux_rewards.rewards.video.flicker:TemporalFlicker",
    "think_answer_format": "flux_rewards.rewards.text.format:ThinkAnswerFormat",
    "think_format": "flux_rewards.rewards.text.format:ThinkFormat",
    "threshold": "flux_rewards.transforms:Threshold",
    "timeout": "flux_rewards.wrappers.timeout:Timeout",
    "token_f1": "flux_rewards.rewards.text.token_f1:TokenF1",
    "token_keyword": "flux_rewards.rewards.tokens.keyword:TokenKeywordReward",
    "token_regex": "flux_rewards.rewards.tokens.regex:TokenRegexReward",
    "token_repetition": "flux_rewards.rewards.tokens.repetition:TokenRepetitionPenalty",
    "tool_calls": "flux_rewards.rewards.text.tool_calls:ToolCallMatch",
    "unified_reward": "flux_rewards.rewards.judges.unified_reward:UnifiedReward",
    "unified_reward_pairwise": "flux_rewards.rewards.judges.unified_reward:UnifiedRewardPairwise",
    "video": "flux_rewards.rewards.video.video_reward:VideoReward",
    "vllm_evaluate": "flux_rewards.rewards.judges.vllm_evaluate:VLLMEvaluate",
    "vqa_score": "flux_rewards.rewards.image.vqa_score:VQAScore",
    "when_given": "flux_rewards.wrappers.when_given:WhenGiven",
    "yes_no_judge": "flux_rewards.rewards.judges.yes_no:YesNoJudge",
}

_log = logging.getLogger(__name__)
_lock = threading.Lock()
_registered: dict[str, Factory] = {}  # by folded name: users' configurations vary in case
_spelling: dict[str, str] = {name.casefold(): name for name in _BUILTIN}


def register_reward(name: str) -> Callable[[F], F]:
    """Class decorator: make a reward known by a name, whatever its case.

    A function that returns a reward may be registered too.

    Raises:
        ConfigError: Another reward has the name, or what is decorated is not a reward.

    Examples:
        >>> @register_reward("first_letter")
        ... class FirstLetter(RewardFunction):
        ...     required_fields = ("response",)
        ...     def compute_reward(self, sample):
        ...         return float(sample.response.startswith("A"))
        >>> resolve_reward("First_Letter") is FirstLetter
        True
    """
    given: Any = name
    if not isinstance(given, str) or not name or "." in name or ":" in name:
        raise ConfigError(
            f"a registered name is text without '.' and ':', found {name!r}; write @register_reward('name')"
        )

    def register(factory: F) -> F:
        if inspect.isclass(factory) and not issubclass(factory, RewardFunction):
            raise ConfigError(f"{factory.__name__} is not a RewardFunction; derive from it, or use FunctionReward")
        if not callable(factory):
            raise ConfigError(
                f"only a reward class or a function that returns a reward can be registered, found {brief(factory)}"
            )
        folded = name.casefold()
        with _lock:
            known = _registered.get(folded)
            # The same definition again is a reload, as in a notebook; another one would silently change a run.
            if _spelling.get(folded) in _BUILTIN or (known is not None and not _same_origin(known, factory)):
                raise ConfigError(
                    f"the reward name {name!r} is taken{'' if known is None else f' by {known!r}'}; choose another"
                )
            _registered[folded] = factory
            _spelling[folded] = name
        return factory

    return register


register_reward_model = register_reward


def list_rewards() -> list[str]:
    """Every registered name, sorted: the library's own, those registered in code and those of installed plugins.

    Examples:
        >>> "length" in list_rewards()
        True
    """
    names = {*_BUILTIN, *(_spelling[folded] for folded in _registered), *_plugins()}
    return sorted(names, key=str.casefold)


def resolve_reward(name: str) -> Factory:
    """The class (or factory) behind a registered name or a dotted path such as ``"my_pkg.rewards.MyReward"``.

    Raises:
        UnknownRewardError: No such name; the message lists close ones.
        ConfigError: What the path or the plugin names is not a reward, or cannot be imported.

    Examples:
        >>> resolve_reward("length").__name__
        'LengthReward'
    """
    if not isinstance(name, str):
        raise ConfigError(f"a reward's name is text, found {brief(name)}")
    folded = name.casefold()
    if folded in _registered:
        return _registered[folded]
    if folded in _spelling:
        return _checked(resolve_path(_BUILTIN[_spelling[folded]]), name)
    if "." in name or ":" in name:
        return _checked(resolve_path(name), name)
    for known, plugin in _plugins().items():
        if known.casefold() == folded:
            return _checked(_load(plugin), name)
    for path in _BUILTIN.values():  # the documentation names classes
        if path.rpartition(":")[2].casefold() == folded:
            return _checked(resolve_path(path), name)
    known_names = list_rewards()
    raise UnknownRewardError(
        f"no reward is called {name!r}{close_match(name, known_names)}. Known: {', '.join(known_names)}. "
        "One of your own is named by its dotted path, such as 'my_package.rewards.MyReward'."
    )


def name_of(factory: Any) -> str | None:
    """The registered name of a class, or None.

    Examples:
        >>> name_of(resolve_reward("length"))
        'length'
    """
    for folded, known in _registered.items():
        if known is factory:
            return _spelling[folded]
    path = f"{getattr(factory, '__module__', None)}:{getattr(factory, '__qualname__', None)}"
    for name, builtin in _BUILTIN.items():
        if builtin == path:
            return name
    for name, plugin in _plugins().items():
        if plugin.value == path:
            return name
    return None


def _same_origin(one: Any, other: Any) -> bool:
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


def _plugins() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for plugin in entry_points(group=ENTRY_POINTS):
        if plugin.name.casefold() in _spelling and plugin.name.casefold() not in _registered:
            _log.warning("the plugin %s is ignored: the name %r is the library's own", plugin.value, plugin.name)
            continue
        found.setdefault(plugin.name, plugin)
    return found


def _load(plugin: EntryPoint) -> Any:
    try:
        return plugin.load()
    except Exception as error:
        raise ConfigError(
            f"the plugin reward {plugin.name!r} ({plugin.value}) cannot be imported: {type(error).__name__}: {error}"
        ) from error


def _checked(found: Any, name: str) -> Factory:
    if inspect.isclass(found) and not issubclass(found, RewardFunction):
        raise ConfigError(f"{name!r} is a class but not a RewardFunction; derive it from flux_rewards.RewardFunction")
    if not callable(found):
        raise ConfigError(f"{name!r} names {brief(found)}, not a reward class")
    return found  # type: ignore[no-any-return]
