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
    from flux_rewards.config import (
        LoadedRewards as LoadedRewards,
        load_rewards as load_rewards,
        to_config as to_config,
    )
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
        RemoteError as RemoteError,
        UnknownRewardError as UnknownRewardError,
        WeightsError as WeightsError,
    )
    from flux_rewards.executor import Executor as Executor
    from flux_rewards.groups import (
        BestOfGroup as BestOfGroup,
        GroupCenter as GroupCenter,
        GroupNormalize as GroupNormalize,
        GroupRank as GroupRank,
        LeaveOneOut as LeaveOneOut,
    )
    from flux_rewards.pending import Pending as Pending
    from flux_rewards.registry import (
        list_rewards as list_rewards,
        register_reward as register_reward,
        register_reward_model as register_reward_model,
        resolve_reward as resolve_reward,
    )
    from flux_rewards.remote.remote_reward import RemoteReward as RemoteReward
    from flux_rewards.rewards.function import FunctionReward as FunctionReward
    from flux_rewards.rewards.image.pick_score import PickScore as PickScore
    from flux_rewards.rewards.image.clip_score import CLIPScore as CLIPScore
    from flux_rewards.rewards.image.hps import HPSv2 as HPSv2
    from flux_rewards.rewards.image.aesthetic import AestheticScore as AestheticScore
    from flux_rewards.rewards.image.image_reward import ImageReward as ImageReward
    from flux_rewards.rewards.image.vqa_score import VQAScore as VQAScore
    from flux_rewards.rewards.judges.yes_no import YesNoJudge as YesNoJudge
    from flux_rewards.rewards.judges.rating import RatingJudge as RatingJudge
    from flux_rewards.rewards.judges.rubric import RubricJudge as RubricJudge
    from flux_rewards.rewards.judges.pairwise import PairwiseJudge as PairwiseJudge
    from flux_rewards.rewards.judges.ranking import RankingJudge as RankingJudge
    from flux_rewards.rewards.judges.vllm_evaluate import VLLMEvaluate as VLLMEvaluate
    from flux_rewards.rewards.judges.rational_rewards import RationalRewardsT2I as RationalRewardsT2I
    from flux_rewards.rewards.judges.rational_rewards import RationalRewardsEdit as RationalRewardsEdit
    from flux_rewards.rewards.judges.unified_reward import UnifiedReward as UnifiedReward
    from flux_rewards.rewards.judges.unified_reward import UnifiedRewardPairwise as UnifiedRewardPairwise
    from flux_rewards.rewards.image.similarity import ImageSimilarity as ImageSimilarity
    from flux_rewards.rewards.image.jpeg import (
        JPEGCompressibility as JPEGCompressibility,
        JPEGIncompressibility as JPEGIncompressibility,
    )
    from flux_rewards.rewards.image.ocr import OCRReward as OCRReward
    from flux_rewards.rewards.image.face_similarity import FaceSimilarity as FaceSimilarity
    from flux_rewards.rewards.video.video_reward import VideoReward as VideoReward
    from flux_rewards.rewards.video.flicker import TemporalFlicker as TemporalFlicker
    from flux_rewards.rewards.video.consistency import FrameConsistency as FrameConsistency
    from flux_rewards.rewards.video.motion import MotionAmount as MotionAmount
    from flux_rewards.rewards.text.exact import ExactMatch as ExactMatch
    from flux_rewards.rewards.text.format import FormatReward as FormatReward
    from flux_rewards.rewards.text.keyword import KeywordReward as KeywordReward
    from flux_rewards.rewards.text.length import LengthReward as LengthReward
    from flux_rewards.rewards.text.numeric import NumericAnswerReward as NumericAnswerReward
    from flux_rewards.rewards.text.regex import RegexReward as RegexReward
    from flux_rewards.rewards.text.repetition import RepetitionPenalty as RepetitionPenalty
    from flux_rewards.rewards.tokens.keyword import TokenKeywordReward as TokenKeywordReward
    from flux_rewards.server.reward_server import RewardServer as RewardServer
    from flux_rewards.server.settings import Limits as Limits
    from flux_rewards.stats import RewardStats as RewardStats
    from flux_rewards.transforms import (
        Clip as Clip,
        Map as Map,
        Normalize as Normalize,
        Scale as Scale,
        Threshold as Threshold,
    )
    from flux_rewards.wrappers.batched import Batched as Batched
    from flux_rewards.wrappers.cached import Cached as Cached
    from flux_rewards.wrappers.circuit_breaker import CircuitBreaker as CircuitBreaker
    from flux_rewards.wrappers.mask_errors import MaskErrors as MaskErrors
    from flux_rewards.wrappers.retry import Retry as Retry
    from flux_rewards.wrappers.timeout import Timeout as Timeout

__version__ = "0.1.0"

_HOMES = {
    "compute_advantages": "flux_rewards.advantages.compute",
    "Limits": "flux_rewards.server.settings",
    "RemoteReward": "flux_rewards.remote.remote_reward",
    "RewardServer": "flux_rewards.server.reward_server",
    "Combinator": "flux_rewards.combinator",
    "UnaryCombinator": "flux_rewards.combinator",
    "RewardFunction": "flux_rewards.base",
    "CompositeReward": "flux_rewards.composite",
    "Gate": "flux_rewards.composite",
    "Product": "flux_rewards.composite",
    "LoadedRewards": "flux_rewards.config",
    "load_rewards": "flux_rewards.config",
    "to_config": "flux_rewards.config",
    "RewardBatch": "flux_rewards.data",
    "RewardOutput": "flux_rewards.data",
    "Sample": "flux_rewards.data",
    "Trajectory": "flux_rewards.data",
    "ComputeError": "flux_rewards.errors",
    "ConfigError": "flux_rewards.errors",
    "ContractError": "flux_rewards.errors",
    "FluxRewardsError": "flux_rewards.errors",
    "InputError": "flux_rewards.errors",
    "JudgeError": "flux_rewards.errors",
    "MissingDependencyError": "flux_rewards.errors",
    "RemoteError": "flux_rewards.errors",
    "UnknownRewardError": "flux_rewards.errors",
    "WeightsError": "flux_rewards.errors",
    "Executor": "flux_rewards.executor",
    "Pending": "flux_rewards.pending",
    "BestOfGroup": "flux_rewards.groups",
    "GroupCenter": "flux_rewards.groups",
    "GroupNormalize": "flux_rewards.groups",
    "GroupRank": "flux_rewards.groups",
    "LeaveOneOut": "flux_rewards.groups",
    "list_rewards": "flux_rewards.registry",
    "register_reward": "flux_rewards.registry",
    "register_reward_model": "flux_rewards.registry",
    "resolve_reward": "flux_rewards.registry",
    "FunctionReward": "flux_rewards.rewards.function",
    "ExactMatch": "flux_rewards.rewards.text.exact",
    "FormatReward": "flux_rewards.rewards.text.format",
    "KeywordReward": "flux_rewards.rewards.text.keyword",
    "LengthReward": "flux_rewards.rewards.text.length",
    "NumericAnswerReward": "flux_rewards.rewards.text.numeric",
    "RegexReward": "flux_rewards.rewards.text.regex",
    "RepetitionPenalty": "flux_rewards.rewards.text.repetition",
    "TokenKeywordReward": "flux_rewards.rewards.tokens.keyword",
    "Clip": "flux_rewards.transforms",
    "Map": "flux_rewards.transforms",
    "Normalize": "flux_rewards.transforms",
    "Scale": "flux_rewards.transforms",
    "Threshold": "flux_rewards.transforms",
    "Batched": "flux_rewards.wrappers.batched",
    "Cached": "flux_rewards.wrappers.cached",
    "CircuitBreaker": "flux_rewards.wrappers.circuit_breaker",
    "MaskErrors": "flux_rewards.wrappers.mask_errors",
    "Retry": "flux_rewards.wrappers.retry",
    "Timeout": "flux_rewards.wrappers.timeout",
    "RewardBuffer": "flux_rewards.buffer",
    "RewardStats": "flux_rewards.stats",
    "PickScore": "flux_rewards.rewards.image.pick_score",
    "CLIPScore": "flux_rewards.rewards.image.clip_score",
    "HPSv2": "flux_rewards.rewards.image.hps",
    "AestheticScore": "flux_rewards.rewards.image.aesthetic",
    "ImageReward": "flux_rewards.rewards.image.image_reward",
    "VQAScore": "flux_rewards.rewards.image.vqa_score",
    "ImageSimilarity": "flux_rewards.rewards.image.similarity",
    "JPEGCompressibility": "flux_rewards.rewards.image.jpeg",
    "JPEGIncompressibility": "flux_rewards.rewards.image.jpeg",
    "OCRReward": "flux_rewards.rewards.image.ocr",
    "FaceSimilarity": "flux_rewards.rewards.image.face_similarity",
    "VideoReward": "flux_rewards.rewards.video.video_reward",
    "TemporalFlicker": "flux_rewards.rewards.video.flicker",
    "FrameConsistency": "flux_rewards.rewards.video.consistency",
    "MotionAmount": "flux_rewards.rewards.video.motion",
    "YesNoJudge": "flux_rewards.rewards.judges.yes_no",
    "RatingJudge": "flux_rewards.rewards.judges.rating",
    "RubricJudge": "flux_rewards.rewards.judges.rubric",
    "PairwiseJudge": "flux_rewards.rewards.judges.pairwise",
    "RankingJudge": "flux_rewards.rewards.judges.ranking",
    "VLLMEvaluate": "flux_rewards.rewards.judges.vllm_evaluate",
    "RationalRewardsT2I": "flux_rewards.rewards.judges.rational_rewards",
    "RationalRewardsEdit": "flux_rewards.rewards.judges.rational_rewards",
    "UnifiedReward": "flux_rewards.rewards.judges.unified_reward",
    "UnifiedRewardPairwise": "flux_rewards.rewards.judges.unified_reward",
}

__all__ = [
    "AestheticScore",
    "Batched",
    "BestOfGroup",
    "CLIPScore",
    "Cached",
    "CircuitBreaker",
    "Clip",
    "Combinator",
    "CompositeReward",
    "ComputeError",
    "ConfigError",
    "ContractError",
    "ExactMatch",
    "Executor",
    "FaceSimilarity",
    "FluxRewardsError",
    "FormatReward",
    "FrameConsistency",
    "FunctionReward",
    "Gate",
    "GroupCenter",
    "GroupNormalize",
    "GroupRank",
    "HPSv2",
    "ImageReward",
    "ImageSimilarity",
    "InputError",
    "JPEGCompressibility",
    "JPEGIncompressibility",
    "JudgeError",
    "KeywordReward",
    "LeaveOneOut",
    "LengthReward",
    "Limits",
    "LoadedRewards",
    "Map",
    "MaskErrors",
    "MissingDependencyError",
    "MotionAmount",
    "Normalize",
    "NumericAnswerReward",
    "OCRReward",
    "PairwiseJudge",
    "Pending",
    "PickScore",
    "Product",
    "RankingJudge",
    "RatingJudge",
    "RationalRewardsEdit",
    "RationalRewardsT2I",
    "RegexReward",
    "RemoteError",
    "RemoteReward",
    "RepetitionPenalty",
    "Retry",
    "RewardBatch",
    "RewardBuffer",
    "RewardFunction",
    "RewardOutput",
    "RewardServer",
    "RewardStats",
    "RubricJudge",
    "Sample",
    "Scale",
    "TemporalFlicker",
    "Threshold",
    "Timeout",
    "TokenKeywordReward",
    "Trajectory",
    "UnaryCombinator",
    "UnifiedReward",
    "UnifiedRewardPairwise",
    "UnknownRewardError",
    "VLLMEvaluate",
    "VQAScore",
    "VideoReward",
    "WeightsError",
    "YesNoJudge",
    "__version__",
    "compute_advantages",
    "list_rewards",
    "load_rewards",
    "register_reward",
    "register_reward_model",
    "resolve_reward",
    "to_config",
]

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
