"""Configuration files: YAML without surprises (a key that appears twice is an error), and those of Flow-Factory.

A training file of Flow-Factory holds the rewards beside much else. What that is, and what its names and keys for
rewards are in this library, is known here and nowhere else; as read at a0b2bc5, with the names that came until 5f6cda1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from flux_rewards.errors import ConfigError, brief, close_match

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SECTIONS", "hint_on_key", "hint_on_name", "own_entry", "own_sections", "read_yaml"]

SECTIONS = ("rewards", "eval_rewards")
"""What is read of a configuration."""

_BESIDE = frozenset(
    {
        "launcher",
        "config_file",
        "num_processes",
        "num_machines",
        "machine_rank",
        "main_process_ip",
        "main_process_port",
        "mixed_precision",
        "run_name",
        "project",
        "logging_backend",
        "data",
        "model",
        "log",
        "train",
        "scheduler",
        "eval",
        "optimizers",
        "extra_kwargs",
    }
)
"""The other sections of a training file of Flow-Factory."""

_PATHS = {
    "CLIPRewardModel": "CLIP",
    "HPSv2RewardModel": "HPSv2",
    "OCRRewardModel": "ocr",
    "PickScoreRankRewardModel": "PickScore_Rank",
    "PickScoreRewardModel": "PickScore",
    "RationalRewardsEditRewardModel": "rational_rewards_edit",
    "RationalRewardsT2IRewardModel": "rational_rewards_t2i",
    "RemoteGroupwiseRewardModel": "flux_rewards.integrations.flow_factory.foreign.FlowFactoryGroupServer",
    "RemotePointwiseRewardModel": "remote",
    "VLMEvaluateImageRewardModel": "vllm_evaluate",
    "VLMEvaluateRewardModel": "vllm_evaluate",
}
"""Flow-Factory's own classes, which may be named by their paths."""

_ELSEWHERE = frozenset(
    {
        "clap",
        "consistent_editing",
        "geneval",
        "geneval2_soft_tifa",
        "geneval_ascend",
        "imagebind",
        "ocr_v27",
        "qwen_image_bench",
        "unireward",
        "vision_reward",
        "vllm_evaluate_video",
    }
)
"""Names of Flow-Factory's registry for what is not here."""


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    "while reading a mapping",
                    node.start_mark,
                    f"the key {key!r} appears twice",
                    key_node.start_mark,
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


# YAML 1.1, which PyYAML reads, takes 1e-3 for a text; everybody writes it as a number.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)[eE][-+]?\d+"), list("-+0123456789.")
)


def read_yaml(path: Path) -> Any:
    """What a YAML file holds.

    Raises:
        ConfigError: The file cannot be read or parsed; the message has the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  # a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error


def own_sections(config: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """The sections of rewards; those that a training file of Flow-Factory has beside them are left alone.

    Raises:
        ConfigError: A section is neither, or what is left alone holds rewards.

    Examples:
        >>> own_sections({"train": {"group_size": 16}, "rewards": []}, "")
        {'rewards': []}
    """
    for key, section in config.items():
        if key in SECTIONS:
            continue
        if key not in _BESIDE:
            raise ConfigError(
                f"{where}unknown section {key!r}{close_match(str(key), SECTIONS)}; the sections are "
                f"{', '.join(SECTIONS)}, and beside them those of a training file of Flow-Factory"
            )
        if _holds_rewards(section):
            raise ConfigError(
                f"{where}the section {key!r} holds a reward, and only {' and '.join(SECTIONS)} are read; "
                f"did you mean {'eval_rewards' if key == 'eval' else 'rewards'!r}?"
            )
    return {key: config[key] for key in SECTIONS if key in config}


def _holds_rewards(section: Any) -> bool:
    if isinstance(section, Mapping):
        return not {"reward_model", *SECTIONS}.isdisjoint(section) or any(map(_holds_rewards, section.values()))
    return isinstance(section, list) and any(map(_holds_rewards, section))


def own_entry(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """An entry, with Flow-Factory's words for rewards and parameters in those of this library.

    Examples:
        >>> own_entry({"reward_model": "hpsv2", "hps_version": "v2.1"})
        {'reward_model': 'hpsv2', 'version': '2.1'}
    """
    name = entry["reward_model"]
    if not isinstance(name, str):
        return entry
    path, _, kind = name.replace(":", ".").rpartition(".")
    if path.split(".")[0] == "flow_factory" and kind in _PATHS:
        name = _PATHS[kind]
        entry = {**entry, "reward_model": name}
        if name == "remote":
            entry = {"protocol": "flow_factory", "required_fields": ["prompt", "image"], **entry}
    elif name.casefold() == "vllm_evaluate_image":
        name = "vllm_evaluate"
        entry = {**entry, "reward_model": name}
    if name.casefold() == "vllm_evaluate":
        # 20 are asked for in any case; a cache of what is asked at temperature 0 decides no score.
        idle = [*(["top_logprobs"] if entry.get("top_logprobs") == 20 else []), "max_cache_size"]
        entry = {"vlm_model": "Qwen3-VL", **{key: value for key, value in entry.items() if key not in idle}}
    if name.casefold() == "hpsv2" and "hps_version" in entry:
        kept = {key: value for key, value in entry.items() if key != "hps_version"}
        entry = {**kept, "version": str(entry["hps_version"]).removeprefix("v")}
    return entry


def hint_on_name(name: Any) -> str:
    """What to do about a reward that Flow-Factory has and this library has not, for the end of a message.

    Examples:
        >>> hint_on_name("length")
        ''
    """
    path = isinstance(name, str) and name.split(".")[0] == "flow_factory"
    if not path and str(name).casefold() not in _ELSEWHERE:
        return ""
    return (
        f". {brief(name)} is Flow-Factory's: wrap it, reward_model: flux_rewards.integrations.flow_factory."
        f"from_flow_factory with model: {name}, or ask a server of Flow-Factory's for it, reward_model: remote with "
        "protocol: flow_factory"
    )


def hint_on_key(key: Any) -> str:
    """What to do about a key of Flow-Factory's that no reward has, for the end of a message.

    Examples:
        >>> hint_on_key("target")
        ''
    """
    if key not in ("applicable_datasets", "applicable_sources"):
        return ""
    return (
        "; which data sets a reward is for is Flow-Factory's to choose: a sample does not know its own. Leave it out, "
        "and return None for the others in a reward of your own"
    )
