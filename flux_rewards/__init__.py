"""Composable reward functions for reinforcement learning of language, image and video models.

Importing this costs nothing: each public name is loaded on first use.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flux_rewards.advantages.compute import compute_advantages as compute_advantages
    from flux_rewards.base import RewardFunction as RewardFunction
    from flux_rewards.buffer import RewardBuffer as RewardBuffer
    from flux_rewards.combinator import Combinator as Combinator, UnaryCombinator as UnaryCombinator
    from flux_rewards.composite import CompositeReward as CompositeReward, Gate as Gate, Product as Product
    from flux_rewards.config import LoadedRewards as LoadedRewards, load_rewards as load_rewards, to_config as to_config
    from flux_rewards.data import (
        RewardBatch as RewardBatch,
        RewardOutput as RewardOutput,
        Sample as Sample,
        Trajectory as Trajectory,
    )
    from flux_rewards.errors import (
        ComputeError as ComputeError,
        ConfigError as ConfigError,
        ContractError as ContractError,
        FluxRewardsError as FluxRewardsError,
        InputError as InputError,
        JudgeError as JudgeError,
        MissingDependencyError as MissingDependencyError,
        OverLimitError as OverLimitError,
        RemoteError as RemoteError,
        UnknownRewardError as UnknownRewardError,
        WeightsError as WeightsError,
        WorkerCrashError as WorkerCrashError,
    )
    from flux_rewards.executor import Executor as Executor
    from flux_rewards.groups import (
        BestOfGroup as BestOfGroup,
        GroupCenter as GroupCenter,
        GroupNormalize as GroupNormalize,
        GroupRank as GroupRank,
        LeaveOneOut as LeaveOneOut,
    )
    from flux_rewards.models.text_format import TextFormat as TextFormat
    from flux_rewards.pending import Pending as Pending
    from flux_rewards.registry import (
        list_rewards as list_rewards,
        register_reward as register_reward,
        register_reward_model as register_reward_model,
        resolve_reward as resolve_reward,
    )
    from flux_rewards.remote.remote_reward import RemoteReward as RemoteReward
    from flux_rewards.rewards.function import FunctionReward as FunctionReward
    from flux_rewards.rewards.image.aesthetic import AestheticScore as AestheticScore
    from flux_rewards.rewards.image.clip_score import CLIPScore as CLIPScore
    from flux_rewards.rewards.image.face_similarity import FaceSimilarity as FaceSimilarity
    from flux_rewards.rewards.image.hps import HPSv2 as HPSv2
    from flux_rewards.rewards.image.image_reward import ImageReward as ImageReward
    from flux_rewards.rewards.image.jpeg import (
        JPEGCompressibility as JPEGCompressibility,
        JPEGIncompressibility as JPEGIncompressibility,
    )
    from flux_rewards.rewards.image.ocr import OCRReward as OCRReward
    from flux_rewards.rewards.image.pick_score import PickScore as PickScore
    from flux_rewards.rewards.image.similarity import ImageSimilarity as ImageSimilarity
    from flux_rewards.rewards.image.vqa_score import VQAScore as VQAScore
    from flux_rewards.rewards.judges.pairwise import PairwiseJudge as PairwiseJudge
    from flux_rewards.rewards.judges.ranking import RankingJudge as RankingJudge
    from flux_rewards.rewards.judges.rating import RatingJudge as RatingJudge
    from flux_rewards.rewards.judges.rational_rewards import (
        RationalRewardsEdit as RationalRewardsEdit,
        RationalRewardsT2I as RationalRewardsT2I,
    )
    from flux_rewards.rewards.judges.rubric import RubricJudge as RubricJudge
    from flux_rewards.rewards.judges.unified_reward import (
        UnifiedReward as UnifiedReward,
        UnifiedRewardPairwise as UnifiedRewardPairwise,
    )
    from flux_rewards.rewards.judges.vllm_evaluate import VLLMEvaluate as VLLMEvaluate
    from flux_rewards.rewards.judges.yes_no import YesNoJudge as YesNoJudge
    from flux_rewards.rewards.learned.classifier import (
        ClassifierReward as ClassifierReward,
        SentimentReward as SentimentReward,
    )
    from flux_rewards.rewards.learned.ensemble import EnsembleReward as EnsembleReward
    from flux_rewards.rewards.learned.generative_score import GenerativeScore as GenerativeScore
    from flux_rewards.rewards.learned.process_reward import ProcessReward as ProcessReward
    from flux_rewards.rewards.learned.reward_model import RewardModelReward as RewardModelReward
    from flux_rewards.rewards.text.bleu import BLEUReward as BLEUReward, ChrFReward as ChrFReward
    from flux_rewards.rewards.text.code_format import CodeFormat as CodeFormat
    from flux_rewards.rewards.text.diversity import GroupDiversity as GroupDiversity
    from flux_rewards.rewards.text.edit_similarity import EditSimilarity as EditSimilarity
    from flux_rewards.rewards.text.exact import ExactMatch as ExactMatch
    from flux_rewards.rewards.text.format import (
        FormatReward as FormatReward,
        ThinkAnswerFormat as ThinkAnswerFormat,
        ThinkFormat as ThinkFormat,
    )
    from flux_rewards.rewards.text.json_format import JSONFormat as JSONFormat
    from flux_rewards.rewards.text.json_match import JSONMatch as JSONMatch
    from flux_rewards.rewards.text.keyword import KeywordReward as KeywordReward
    from flux_rewards.rewards.text.language import LanguageReward as LanguageReward
    from flux_rewards.rewards.text.length import (
        LengthRange as LengthRange,
        LengthReward as LengthReward,
        ResponseLength as ResponseLength,
    )
    from flux_rewards.rewards.text.length_schedules import CosineLength as CosineLength, GroupLength as GroupLength
    from flux_rewards.rewards.text.list_match import ListMatch as ListMatch
    from flux_rewards.rewards.text.math import MathReward as MathReward
    from flux_rewards.rewards.text.multiple_choice import MultipleChoice as MultipleChoice
    from flux_rewards.rewards.text.numeric import NumericAnswerReward as NumericAnswerReward
    from flux_rewards.rewards.text.overlong import SoftOverlongPunishment as SoftOverlongPunishment
    from flux_rewards.rewards.text.reasoning_steps import ReasoningSteps as ReasoningSteps
    from flux_rewards.rewards.text.regex import RegexReward as RegexReward
    from flux_rewards.rewards.text.repetition import (
        DistinctNGrams as DistinctNGrams,
        RepetitionPenalty as RepetitionPenalty,
    )
    from flux_rewards.rewards.text.rouge import ROUGEReward as ROUGEReward
    from flux_rewards.rewards.text.sections import SectionsReward as SectionsReward
    from flux_rewards.rewards.text.tag_count import TagCount as TagCount
    from flux_rewards.rewards.text.token_f1 import TokenF1 as TokenF1
    from flux_rewards.rewards.text.tool_calls import ToolCallMatch as ToolCallMatch
    from flux_rewards.rewards.tokens.alignment import offsets_of as offsets_of, tokens_of_spans as tokens_of_spans
    from flux_rewards.rewards.tokens.converters import (
        Discounted as Discounted,
        LastToken as LastToken,
        PotentialShaping as PotentialShaping,
        Spread as Spread,
    )
    from flux_rewards.rewards.tokens.keyword import TokenKeywordReward as TokenKeywordReward
    from flux_rewards.rewards.tokens.regex import TokenRegexReward as TokenRegexReward
    from flux_rewards.rewards.tokens.repetition import TokenRepetitionPenalty as TokenRepetitionPenalty
    from flux_rewards.rewards.tokens.steps import StepRewards as StepRewards
    from flux_rewards.rewards.video.consistency import FrameConsistency as FrameConsistency
    from flux_rewards.rewards.video.flicker import TemporalFlicker as TemporalFlicker
    from flux_rewards.rewards.video.motion import MotionAmount as MotionAmount
    from flux_rewards.rewards.video.video_reward import VideoReward as VideoReward
    from flux_rewards.server.reward_server import RewardServer as RewardServer
    from flux_rewards.server.settings import Limits as Limits
    from flux_rewards.stats import RewardStats as RewardStats
    from flux_rewards.training.calibrated import Calibrated as Calibrated
    from flux_rewards.training.evaluate import evaluate_preferences as evaluate_preferences
    from flux_rewards.training.preferences import PreferencePair as PreferencePair
    from flux_rewards.training.preferences_data import PreferenceData as PreferenceData
    from flux_rewards.training.ratings import from_ab_tests as from_ab_tests, from_ratings as from_ratings
    from flux_rewards.training.select import rank_responses as rank_responses, select_uncertain as select_uncertain
    from flux_rewards.training.settings import LoraSettings as LoraSettings, TrainingSettings as TrainingSettings
    from flux_rewards.training.sources import load_preferences as load_preferences
    from flux_rewards.training.train import (
        TrainedRewardModel as TrainedRewardModel,
        train_reward_model as train_reward_model,
    )
    from flux_rewards.training.train_aspects import TrainedAspects as TrainedAspects, train_aspects as train_aspects
    from flux_rewards.transforms import (
        Clip as Clip,
        Map as Map,
        Normalize as Normalize,
        Scale as Scale,
        Threshold as Threshold,
    )
    from flux_rewards.workers.in_process import InProcess as InProcess
    from flux_rewards.workers.outcome import Outcome as Outcome
    from flux_rewards.workers.pool import KillablePool as KillablePool
    from flux_rewards.wrappers.batched import Batched as Batched
    from flux_rewards.wrappers.cached import Cached as Cached
    from flux_rewards.wrappers.circuit_breaker import CircuitBreaker as CircuitBreaker
    from flux_rewards.wrappers.mask_errors import MaskErrors as MaskErrors
    from flux_rewards.wrappers.retry import Retry as Retry
    from flux_rewards.wrappers.timeout import Timeout as Timeout
    from flux_rewards.wrappers.when_given import WhenGiven as WhenGiven

__version__ = "0.1.0"

# The public names by the module that they are loaded from.
_NAMES = {
    "flux_rewards.advantages.compute": "compute_advantages",
    "flux_rewards.base": "RewardFunction",
    "flux_rewards.buffer": "RewardBuffer",
    "flux_rewards.combinator": "Combinator UnaryCombinator",
    "flux_rewards.composite": "CompositeReward Gate Product",
    "flux_rewards.config": "LoadedRewards load_rewards to_config",
    "flux_rewards.data": "RewardBatch RewardOutput Sample Trajectory",
    "flux_rewards.errors": (
        "ComputeError ConfigError ContractError FluxRewardsError InputError JudgeError MissingDependencyError "
        "OverLimitError RemoteError UnknownRewardError WeightsError WorkerCrashError "
    ),
    "flux_rewards.executor": "Executor",
    "flux_rewards.groups": "BestOfGroup GroupCenter GroupNormalize GroupRank LeaveOneOut",
    "flux_rewards.models.text_format": "TextFormat",
    "flux_rewards.pending": "Pending",
    "flux_rewards.registry": "list_rewards register_reward register_reward_model resolve_reward",
    "flux_rewards.remote.remote_reward": "RemoteReward",
    "flux_rewards.rewards.function": "FunctionReward",
    "flux_rewards.rewards.image.aesthetic": "AestheticScore",
    "flux_rewards.rewards.image.clip_score": "CLIPScore",
    "flux_rewards.rewards.image.face_similarity": "FaceSimilarity",
    "flux_rewards.rewards.image.hps": "HPSv2",
    "flux_rewards.rewards.image.image_reward": "ImageReward",
    "flux_rewards.rewards.image.jpeg": "JPEGCompressibility JPEGIncompressibility",
    "flux_rewards.rewards.image.ocr": "OCRReward",
    "flux_rewards.rewards.image.pick_score": "PickScore",
    "flux_rewards.rewards.image.similarity": "ImageSimilarity",
    "flux_rewards.rewards.image.vqa_score": "VQAScore",
    "flux_rewards.rewards.judges.pairwise": "PairwiseJudge",
    "flux_rewards.rewards.judges.ranking": "RankingJudge",
    "flux_rewards.rewards.judges.rating": "RatingJudge",
    "flux_rewards.rewards.judges.rational_rewards": "RationalRewardsEdit RationalRewardsT2I",
    "flux_rewards.rewards.judges.rubric": "RubricJudge",
    "flux_rewards.rewards.judges.unified_reward": "UnifiedReward UnifiedRewardPairwise",
    "flux_rewards.rewards.judges.vllm_evaluate": "VLLMEvaluate",
    "flux_rewards.rewards.judges.yes_no": "YesNoJudge",
    "flux_rewards.rewards.learned.classifier": "ClassifierReward SentimentReward",
    "flux_rewards.rewards.learned.ensemble": "EnsembleReward",
    "flux_rewards.rewards.learned.generative_score": "GenerativeScore",
    "flux_rewards.rewards.learned.process_reward": "ProcessReward",
    "flux_rewards.rewards.learned.reward_model": "RewardModelReward",
    "flux_rewards.rewards.text.bleu": "BLEUReward ChrFReward",
    "flux_rewards.rewards.text.code_format": "CodeFormat",
    "flux_rewards.rewards.text.diversity": "GroupDiversity",
    "flux_rewards.rewards.text.edit_similarity": "EditSimilarity",
    "flux_rewards.rewards.text.exact": "ExactMatch",
    "flux_rewards.rewards.text.format": "FormatReward ThinkAnswerFormat ThinkFormat",
    "flux_rewards.rewards.text.json_format": "JSONFormat",
    "flux_rewards.rewards.text.json_match": "JSONMatch",
    "flux_rewards.rewards.text.keyword": "KeywordReward",
    "flux_rewards.rewards.text.language": "LanguageReward",
    "flux_rewards.rewards.text.length": "LengthRange LengthReward ResponseLength",
    "flux_rewards.rewards.text.length_schedules": "CosineLength GroupLength",
    "flux_rewards.rewards.text.list_match": "ListMatch",
    "flux_rewards.rewards.text.math": "MathReward",
    "flux_rewards.rewards.text.multiple_choice": "MultipleChoice",
    "flux_rewards.rewards.text.numeric": "NumericAnswerReward",
    "flux_rewards.rewards.text.overlong": "SoftOverlongPunishment",
    "flux_rewards.rewards.text.reasoning_steps": "ReasoningSteps",
    "flux_rewards.rewards.text.regex": "RegexReward",
    "flux_rewards.rewards.text.repetition": "DistinctNGrams RepetitionPenalty",
    "flux_rewards.rewards.text.rouge": "ROUGEReward",
    "flux_rewards.rewards.text.sections": "SectionsReward",
    "flux_rewards.rewards.text.tag_count": "TagCount",
    "flux_rewards.rewards.text.token_f1": "TokenF1",
    "flux_rewards.rewards.text.tool_calls": "ToolCallMatch",
    "flux_rewards.rewards.tokens.alignment": "offsets_of tokens_of_spans",
    "flux_rewards.rewards.tokens.converters": "Discounted LastToken PotentialShaping Spread",
    "flux_rewards.rewards.tokens.keyword": "TokenKeywordReward",
    "flux_rewards.rewards.tokens.regex": "TokenRegexReward",
    "flux_rewards.rewards.tokens.repetition": "TokenRepetitionPenalty",
    "flux_rewards.rewards.tokens.steps": "StepRewards",
    "flux_rewards.rewards.video.consistency": "FrameConsistency",
    "flux_rewards.rewards.video.flicker": "TemporalFlicker",
    "flux_rewards.rewards.video.motion": "MotionAmount",
    "flux_rewards.rewards.video.video_reward": "VideoReward",
    "flux_rewards.server.reward_server": "RewardServer",
    "flux_rewards.server.settings": "Limits",
    "flux_rewards.stats": "RewardStats",
    "flux_rewards.training.calibrated": "Calibrated",
    "flux_rewards.training.evaluate": "evaluate_preferences",
    "flux_rewards.training.preferences": "PreferencePair",
    "flux_rewards.training.preferences_data": "PreferenceData",
    "flux_rewards.training.ratings": "from_ab_tests from_ratings",
    "flux_rewards.training.select": "rank_responses select_uncertain",
    "flux_rewards.training.settings": "LoraSettings TrainingSettings",
    "flux_rewards.training.sources": "load_preferences",
    "flux_rewards.training.train": "TrainedRewardModel train_reward_model",
    "flux_rewards.training.train_aspects": "TrainedAspects train_aspects",
    "flux_rewards.transforms": "Clip Map Normalize Scale Threshold",
    "flux_rewards.workers.in_process": "InProcess",
    "flux_rewards.workers.outcome": "Outcome",
    "flux_rewards.workers.pool": "KillablePool",
    "flux_rewards.wrappers.batched": "Batched",
    "flux_rewards.wrappers.cached": "Cached",
    "flux_rewards.wrappers.circuit_breaker": "CircuitBreaker",
    "flux_rewards.wrappers.mask_errors": "MaskErrors",
    "flux_rewards.wrappers.retry": "Retry",
    "flux_rewards.wrappers.timeout": "Timeout",
    "flux_rewards.wrappers.when_given": "WhenGiven",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = sorted([*_HOMES, "__version__"])  # noqa: PLE0605  # one list of names is enough

# A library logs and leaves it to the application to say where to.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value  # found directly from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
