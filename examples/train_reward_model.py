"""From rated answers to a reward model, end to end, on the CPU and without a download.

Solutions of school problems by four language models are known to be right or wrong. Right ones are preferred to wrong
ones of the same problem, and a small model learns from that. It starts from random numbers and sees some 200 pairs, so
it learns little, if anything: what counts here is that the number it reaches is an honest one, beside chance, beside
the length of the answers, and with its interval.

    python examples/train_reward_model.py [DIRECTORY]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from flux_rewards import (
    Calibrated,
    PreferenceData,
    TrainedRewardModel,
    TrainingSettings,
    from_ratings,
    load_rewards,
    train_reward_model,
)
from flux_rewards.errors import ComputeError

SAMPLES = Path(__file__).parent / "gsm8k" / "samples.jsonl"
FRESH = """
import json, sys
from flux_rewards import RewardModelReward
samples = json.load(sys.stdin)
print(json.dumps(RewardModelReward(sys.argv[1], device="cpu")(**samples).rewards.tolist()))
"""


def tokenizer_of(pairs: PreferenceData) -> PreTrainedTokenizerFast:
    """A tokenizer of a thousand pieces, learned from the texts that are trained on; each digit is one."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=["<pad>", "<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(
        (str(text) for pair in pairs for text in (pair.prompt, pair.chosen, pair.rejected)), trainer
    )
    special = {"pad_token": "<pad>", "eos_token": "<end>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=512, **special)


def train(pairs: PreferenceData, test: PreferenceData, folder: Path, **settings: Any) -> TrainedRewardModel:
    """A small decoder from scratch; the defaults but for what a small model from scratch needs."""
    words = tokenizer_of(pairs)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        pad_token_id=words.pad_token_id,
        bos_token_id=None,
        eos_token_id=words.eos_token_id,
    )
    chosen: dict[str, Any] = {
        "learning_rate": 2e-3,
        "epochs": 3,
        "batch_size": 16,
        "weight_decay": 0.1,
        "max_length": 400,
        "device": "cpu",
        **settings,
    }
    return train_reward_model(config, pairs, test, folder, TrainingSettings(**chosen), tokenizer=words)


def main(folder: Path, epochs: float = 3) -> None:
    """Make pairs, train, load in a fresh process, calibrate, and use in a composite."""
    pairs = from_ratings(SAMPLES, "metadata.is_correct", mode="all_pairs")
    print(pairs)
    train_pairs, test_pairs = pairs.split(0.4, seed=0)  # by problem: none is in both
    trained = train(train_pairs, test_pairs, folder / "model", epochs=epochs)
    print(f"\n{trained.held_out}\n\n{trained.held_out.report if trained.held_out else ''}\n")

    reward = trained.reward(device="cpu")
    samples: dict[str, Any] = {
        "prompt": [pair.prompt for pair in test_pairs][:8],
        "response": [pair.chosen for pair in test_pairs][:8],
    }
    scores = reward(**samples).rewards
    fresh = subprocess.run(  # noqa: S603  # this Python
        [sys.executable, "-c", FRESH, str(trained.path)],
        input=json.dumps(samples),
        capture_output=True,
        text=True,
        check=True,
    )
    apart = max(abs(here - there) for here, there in zip(scores.tolist(), json.loads(fresh.stdout), strict=True))
    print(f"in a fresh process the scores differ by {apart:.1e} at most")

    learned: dict[str, Any] = {"reward_model": "reward_model", "model_name_or_path": str(trained.path), "device": "cpu"}
    try:
        fitted = Calibrated.fit(reward, test_pairs)
    except ComputeError as error:  # it has not learned which is better: no scale makes that good
        print(f"not calibrated: {error}")
    else:
        fitted.save(folder / "calibration.json")
        print(f"calibrated: log-odds are {fitted.slope:.3f} times the score; {dict(fitted.facts or {})}")
        learned = {"reward_model": "calibrated", "reward": learned, "slope": fitted.slope}

    config = folder / "rewards.yaml"
    entries = [
        {"name": "learned", "weight": 0.2, **learned},
        {"name": "correct", "weight": 1.0, "reward_model": "numeric_answer"},
    ]
    config.write_text(yaml.safe_dump({"rewards": entries}, sort_keys=False))
    composite = load_rewards(config).train
    batch = composite([pair.chosen_sample for pair in test_pairs][:4])
    print("\ncomposite", batch.rewards.round(3))
    for name, part in batch.parts.items():
        print(f"{name:9}", part.rewards.round(3))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=Path, help="where everything goes; a temporary one by default")
    parser.add_argument("--epochs", type=float, default=3, help="how often each pair is seen")
    given = parser.parse_args()
    if given.directory is not None:
        main(given.directory, given.epochs)
    else:
        with tempfile.TemporaryDirectory() as made:
            main(Path(made), given.epochs)
