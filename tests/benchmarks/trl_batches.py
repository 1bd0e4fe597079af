"""A step of TRL with three rewards that wait 100 ms each, as a judge does: as one composite, and as three functions.

    python tests/benchmarks/trl_batches.py

Prints one table: seconds that `GRPOTrainer` takes to calculate the rewards of one batch (median of interleaved rounds),
and the ratio to the same three rewards as plain functions, which TRL calls one after the other. TRL gathers functions
that are coroutines; these are shown, too. The trainer, its method and the batch are TRL's own.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

from flux_rewards import CompositeReward, RewardFunction, Sample
from flux_rewards.integrations import trl

PAUSE = 0.1
ROUNDS = 15
BATCH = 32
WEIGHTS = {"helpful": 1.0, "honest": 0.5, "brief": 0.25}
SPECIAL = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}


class Waiting(RewardFunction):
    """Waits for an answer once a batch; the score is the number of words."""

    def compute_rewards(self, samples: Sequence[Sample]) -> list[float]:
        """Wait."""
        time.sleep(PAUSE)
        return [float(len(sample.response_text.split())) for sample in samples]


def function(name: str) -> Callable[..., list[float]]:
    """The same as a plain reward function."""

    def wait(completions: Sequence[str], **_: Any) -> list[float]:
        time.sleep(PAUSE)
        return [float(len(text.split())) for text in completions]

    wait.__name__ = name
    return wait


def coroutine(name: str) -> Callable[..., Any]:
    """The same as a reward function that TRL awaits."""

    async def wait(completions: Sequence[str], **_: Any) -> list[float]:
        await asyncio.sleep(PAUSE)
        return [float(len(text.split())) for text in completions]

    wait.__name__ = name
    return wait


def make_trainer(funcs: list[Any], folder: Path) -> Any:
    """GRPO with a tiny model."""
    words = Tokenizer(models.WordLevel({word: at for at, word in enumerate([*SPECIAL.values(), "yes", "no"])}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    config = LlamaConfig(
        vocab_size=5, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, pad_token_id=0
    )
    return GRPOTrainer(
        model=LlamaForCausalLM(config),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=words, **SPECIAL),
        reward_funcs=funcs,
        args=GRPOConfig(
            output_dir=str(folder),
            reward_weights=list(WEIGHTS.values()),
            per_device_train_batch_size=BATCH,
            num_generations=8,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
        ),
        train_dataset=Dataset.from_dict({"prompt": ["yes"] * BATCH}),
    )


def main() -> None:
    """Measure and print."""
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
    composite = CompositeReward({name: (Waiting(), weight) for name, weight in WEIGHTS.items()})
    kinds: dict[str, list[Any]] = {
        "three plain functions": [function(name) for name in WEIGHTS],
        "three coroutine functions": [coroutine(name) for name in WEIGHTS],
        "reward_funcs(composite)": list(trl.reward_funcs(composite)[0]),
        "reward_funcs(composite, is_async=True)": list(trl.reward_funcs(composite, is_async=True)[0]),
    }
    completions = [f"{'yes ' * (1 + row % 4)}" for row in range(BATCH)]
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    with tempfile.TemporaryDirectory() as folder:
        trainers = {name: make_trainer(funcs, Path(folder)) for name, funcs in kinds.items()}
        for at in range(ROUNDS + 1):
            for name, trainer in trainers.items():
                inputs = [{"prompt": "yes"} for _ in range(BATCH)]
                start = time.perf_counter()
                found = trainer._calculate_rewards(inputs, ["yes"] * BATCH, list(completions), [[3]] * BATCH)
                taken = time.perf_counter() - start
                assert found.tolist() == [[1.0 + row % 4] * 3 for row in range(BATCH)], name
                if at:  # the first one warms up
                    seconds[name].append(taken)

    table = Table(title=f"{BATCH} completions, three rewards of {PAUSE * 1e3:.0f} ms, median of {ROUNDS} rounds")
    for column in ("what TRL is given", "seconds a batch", "of the plain functions"):
        table.add_column(column, justify="left" if column == "what TRL is given" else "right")
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name, median in medians.items():
        table.add_row(name, f"{median:.3f}", f"{median / medians['three plain functions']:.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
