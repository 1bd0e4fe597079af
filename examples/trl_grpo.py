"""GRPO with TRL on the CPU: a tiny model learns to answer with digits, in a few steps.

    pip install "flux_rewards" trl
    python examples/trl_grpo.py

The model is made here, with random weights, so that nothing is downloaded; put your own in its place.
"""

import tempfile
import warnings
from pathlib import Path
from typing import Any

from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed
from trl import GRPOConfig, GRPOTrainer

from flux_rewards import CompositeReward, FunctionReward, GroupRank, LengthReward, MaskErrors, Sample
from flux_rewards.integrations import trl

WORDS = [str(number) for number in range(10)] + ["+", "=", "?", "the", "answer", "is"]
SPECIAL = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}


def digits(sample: Sample) -> float | None:
    """The share of words that are digits; an empty response is none of its business."""
    words = sample.response_text.split()
    return sum(word.isdigit() for word in words) / len(words) if words else None


def make_model(folder: Path) -> Path:
    """A causal model of one layer, and a tokenizer of a few words."""
    vocabulary = {word: number for number, word in enumerate([*SPECIAL.values(), *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL["unk_token"]))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, **SPECIAL).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def main(folder: Path) -> None:
    """Train."""
    # TRL 1.16 still calls it so, and transformers 5.23 doesn't.
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
    set_seed(0)
    problems = [(left, right) for left in range(5) for right in range(5)]
    dataset = Dataset.from_dict(
        {
            "prompt": [f"{left} + {right} = ?" for left, right in problems],
            "solution": [str(left + right) for left, right in problems],  # the reference of each sample
        }
    )
    reward = MaskErrors(
        CompositeReward(
            {
                "digits": (FunctionReward(digits), 1.0),
                "short": (GroupRank(LengthReward(target=4, unit="words")), 0.2),  # ranks within each prompt's group
            }
        )
    )
    funcs, weights = trl.reward_funcs(reward)
    trainer = GRPOTrainer(
        model=str(make_model(folder / "model")),
        reward_funcs=funcs,
        args=GRPOConfig(
            output_dir=str(folder),
            reward_weights=weights,
            num_generations=8,
            per_device_train_batch_size=32,
            max_completion_length=8,
            max_steps=30,
            learning_rate=1e-2,
            logging_steps=5,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=dataset,
    )
    trainer.train()
    logs: list[dict[str, Any]] = [entry for entry in trainer.state.log_history if "reward" in entry]
    for entry in logs:
        print(f"step {entry['step']:2d}: reward {entry['reward']:.3f}, digits {entry['rewards/digits/mean']:.3f}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(scratch))
