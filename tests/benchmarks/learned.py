"""Language models as rewards: batches by length against the usual ways, and one pass against a pass for every prefix.

    python tests/benchmarks/learned.py

Prints two tables, each the same scores computed in several ways in one run: seconds (median of interleaved rounds) and
the ratio to this library. Models are random, of a real architecture; texts differ in length by a factor of fifty, as
reasoning does. The largest difference between the scores stands beside, for a faster way to other numbers is none.
"""

from __future__ import annotations

import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny_text_models as tiny
from tiny_vlm import library

from flux_rewards import Sample
from flux_rewards.rewards.learned.process_reward import ProcessReward
from flux_rewards.rewards.learned.reward_model import RewardModelReward

ROUNDS = 3
SIZES = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64, "max_position_embeddings": 4096}
SAMPLES = 48
BATCH = 16
STEPS = 12
WORDS = tiny.WORDS.split()


def text(generator: np.random.Generator, words: int) -> str:
    """Words that the tokenizer knows."""
    return " ".join(generator.choice(WORDS, size=words))


def samples_of_all_lengths() -> list[Sample]:
    """Ten to five hundred words, most of them short."""
    generator = np.random.default_rng(0)
    lengths = np.exp(generator.uniform(np.log(10), np.log(500), size=SAMPLES)).astype(int)
    return [Sample(text(generator, 8), text(generator, int(words))) for words in lengths]


def classify(folder: Path) -> dict[str, Callable[[], list[float]]]:
    """The ways to score responses with a reward model."""
    samples = samples_of_all_lengths()
    reward = RewardModelReward(str(folder), device="cpu", max_batch_tokens=4096)
    model = library.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = library.AutoTokenizer.from_pretrained(folder)
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": sample.prompt}, {"role": "assistant", "content": sample.response}],
            tokenize=False,
        )
        for sample in samples
    ]

    def ours() -> list[float]:
        return [row.reward for row in reward(samples)]

    def in_batches(size: int) -> list[float]:
        found: list[float] = []
        for start in range(0, len(texts), size):
            inputs = tokenizer(
                texts[start : start + size],
                return_tensors="pt",
                padding=True,
                padding_side="right",
                add_special_tokens=False,
            )
            with torch.inference_mode():
                found += model(**inputs, use_cache=False).logits[:, 0].tolist()
        return found

    return {
        "RewardModelReward": ours,
        f"batches of {BATCH} in order, as TRL's GRPOTrainer": lambda: in_batches(BATCH),
        "one by one": lambda: in_batches(1),
    }


def process(folder: Path) -> dict[str, Callable[[], list[float]]]:
    """The ways to score the steps of responses."""
    generator = np.random.default_rng(1)
    responses = [[text(generator, 30) for _ in range(STEPS)] for _ in range(8)]
    samples = [Sample("think", "\n\n".join(steps)) for steps in responses]
    reward = ProcessReward(str(folder), device="cpu")
    model = library.AutoModelForTokenClassification.from_pretrained(folder).eval()
    tokenizer = library.AutoTokenizer.from_pretrained(folder)

    def ours() -> list[float]:
        return [row.reward for row in reward(samples)]

    def ids(part: str) -> list[int]:
        found: list[int] = tokenizer(part, add_special_tokens=False)["input_ids"]
        return found

    def by_prefix() -> list[float]:
        found: list[float] = []
        for steps in responses:
            tokens = [tokenizer.bos_token_id, *ids("think")]
            scores = []
            for step in steps:
                tokens = [*tokens, *ids(step), *ids("\n")]
                with torch.inference_mode():
                    logits = model(torch.tensor([tokens])).logits[0, -1]
                scores.append(logits.softmax(0)[1].item())
            found.append(min(scores))
        return found

    return {
        "ProcessReward": ours,
        f"a pass for each prefix of {STEPS} steps": by_prefix,
    }


def measured(ways: dict[str, Callable[[], list[float]]]) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds of each way, and how far its scores are from the first one's."""
    scores = {name: way() for name, way in ways.items()}  # loads, too
    first = next(iter(scores.values()))
    apart = {name: float(np.abs(np.subtract(found, first)).max()) for name, found in scores.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - begun)
    return {name: statistics.median(found) for name, found in seconds.items()}, apart


def table(title: str, ways: dict[str, Callable[[], list[float]]]) -> Table:
    """One table of the ways."""
    seconds, apart = measured(ways)
    ours = next(iter(seconds.values()))
    shown = Table(title=title)
    for column in ("", "seconds", "ratio", "largest difference"):
        shown.add_column(column, justify="left" if not column else "right")
    for name, spent in seconds.items():
        shown.add_row(name, f"{spent:.2f}", f"{spent / ours:.2f}", f"{apart[name]:.1e}")
    return shown


def main(_arguments: Sequence[str] = ()) -> None:
    """Print the tables."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as folder:
        sizes: dict[str, Any] = SIZES
        reward_model = tiny.reward_model(Path(folder) / "reward_model", "Qwen3", **sizes)
        process_model = tiny.token_classifier(Path(folder) / "process", "Qwen3", **sizes)
        console.print(table(f"{SAMPLES} responses of 10 to 500 words", classify(reward_model)))
        console.print(table(f"8 responses of {STEPS} steps of 30 words", process(process_model)))


if __name__ == "__main__":
    main()
