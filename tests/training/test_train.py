"""Training a reward model: it learns, it is TRL's training, and what it leaves is what scoring reads."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_training as tiny
import torch
import transformers

from flux_rewards.config import load_rewards
from flux_rewards.data import Sample
from flux_rewards.errors import ComputeError, ConfigError, InputError, MissingDependencyError, WeightsError
from flux_rewards.models.text_format import TextFormat
from flux_rewards.models.weights import read_tensors
from flux_rewards.training.preferences import PreferencePair
from flux_rewards.training.preferences_data import PreferenceData
from flux_rewards.training.settings import LoraSettings, TrainingSettings
from flux_rewards.training.sources import load_preferences
from flux_rewards.training.train import TrainedRewardModel, train_reward_model
from flux_rewards.training.train_aspects import train_aspects
from flux_rewards.training.train_state import import_trainer

library: Any = transformers  # half of it has no types

QUICK = TrainingSettings(learning_rate=5e-3, batch_size=16, device="cpu")
SHORT = replace(QUICK, max_steps=4, held_out=0.0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedRewardModel:
    """A model that has learned the rule, with its default format."""
    folder = tmp_path_factory.mktemp("trained") / "model"
    return train(folder, tiny.pairs(320), tiny.pairs(80, seed=1))


def train(
    folder: Path,
    pairs: PreferenceData,
    eval_pairs: PreferenceData | None = None,
    settings: TrainingSettings = QUICK,
    *,
    kind: str = "llama",
    chat: bool = False,
    **options: Any,
) -> TrainedRewardModel:
    """A tiny model from scratch."""
    words = tiny.tokenizer(kind, chat=chat)
    return train_reward_model(tiny.config(kind), pairs, eval_pairs, folder, settings, tokenizer=words, **options)


def weights(folder: Path, file: str = "model.safetensors") -> dict[str, torch.Tensor]:
    """The saved tensors."""
    return read_tensors(folder / file)


def test_a_rule_is_learned(trained: TrainedRewardModel) -> None:
    """Held-out pairs whose rule is one word: above 0.9, and above what the length gives away."""
    assert trained.held_out is not None
    assert trained.accuracy is not None
    assert trained.accuracy > 0.9
    assert trained.held_out.length_accuracy < 0.75
    assert trained.held_out.interval is not None
    assert trained.held_out.interval[0] > 0.9
    assert not (trained.path / "checkpoints").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "chat"), [("bert", False), ("qwen3", True)])
def test_other_architectures_learn_it_too(tmp_path: Path, kind: str, chat: bool) -> None:
    """An encoder that reads pairs of texts, kinds of tokens and all; and a chat model with its template."""
    settings = replace(QUICK, epochs=2)
    found = train(tmp_path / "model", tiny.pairs(320), tiny.pairs(80, seed=1), settings, kind=kind, chat=chat)
    assert found.format.template == ("chat" if chat else "pair")
    assert found.accuracy is not None
    assert found.accuracy > 0.9


def test_scores_are_those_of_transformers(trained: TrainedRewardModel) -> None:
    """The saved directory, read by transformers alone, with the text written by hand."""
    model = library.AutoModelForSequenceClassification.from_pretrained(trained.path).eval()
    words = library.AutoTokenizer.from_pretrained(trained.path)
    samples = [pair.chosen_sample for pair in tiny.pairs(5, seed=2)]
    texts = [f"{sample.prompt}\n{sample.response}</s>" for sample in samples]
    with torch.no_grad():
        expected = [float(model(**words(text, return_tensors="pt")).logits[0, 0]) for text in texts]
    found = trained.reward(device="cpu")(samples)
    assert found.rewards == pytest.approx(expected, abs=1e-5)


def test_what_the_directory_says(trained: TrainedRewardModel) -> None:
    """`reward_model.json` has the format and the facts, the model card the accuracy beside its baselines."""
    held = json.loads((trained.path / "reward_model.json").read_text())
    assert held["format"] == {**TextFormat("{prompt}\n{response}{eos_token}", 64).to_dict()}
    assert held["training"]["held_out"]["accuracy"] == trained.accuracy
    assert held["training"]["pairs"]["trained_on"] == 320
    assert TrainingSettings.from_dict(held["training"]["settings"]) == QUICK
    card = (trained.path / "README.md").read_text()
    assert f"| this model | {trained.accuracy:.3f} |" in card
    assert "| chance | 0.500 | |" in card
    assert "answer (by characters)" in card
    assert not [path.name for path in trained.path.iterdir() if path.suffix in (".bin", ".pt")]  # pickles


def test_it_is_the_training_of_trl(tmp_path: Path) -> None:
    """TRL's RewardTrainer on the same texts, tokenized by itself, ends with the same weights."""
    trl: Any = pytest.importorskip("trl")
    datasets: Any = pytest.importorskip("datasets")
    pairs = tiny.pairs(48, margin=0.5)
    settings = replace(SHORT, seed=3, center_rewards=0.01, format=TextFormat("{prompt}{response}{eos_token}"))
    torch.manual_seed(7)
    model = library.LlamaForSequenceClassification(tiny.config(num_labels=1))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = train_reward_model(model, pairs, None, tmp_path / "ours", settings, tokenizer=tiny.tokenizer())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    arguments = trl.RewardConfig(
        output_dir=str(tmp_path / "theirs"),
        learning_rate=5e-3,
        max_steps=4,
        per_device_train_batch_size=16,
        lr_scheduler_type="linear",
        warmup_steps=0.05,
        center_rewards_coefficient=0.01,
        seed=3,
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        logging_steps=1,
    )
    rows = [
        {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected, "margin": pair.margin}
        for pair in pairs
    ]
    trainer = trl.RewardTrainer(
        model=model,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tiny.tokenizer(),
    )
    trainer.train()
    theirs = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["loss"] for entry in found.run.log if "loss" in entry] == pytest.approx(theirs, abs=1e-6)
    ours = weights(tmp_path / "ours")
    for name, tensor in trainer.model.state_dict().items():
        assert torch.allclose(ours[name], tensor, atol=1e-6), name


@pytest.mark.parametrize("used", [True, False])
def test_margins_enter_the_loss(tmp_path: Path, used: bool) -> None:
    """The loss of the first step, by the published formula, from the scores of the model before it."""
    pairs = tiny.pairs(8, margin=1.5)
    torch.manual_seed(0)
    model = library.LlamaForSequenceClassification(tiny.config(num_labels=1)).eval()
    words = tiny.tokenizer()

    def score(answer: Any, prompt: Any) -> float:
        with torch.no_grad():
            return float(model(**words(f"{prompt}\n{answer}</s>", return_tensors="pt")).logits[0, 0])

    differences = [score(pair.chosen, pair.prompt) - score(pair.rejected, pair.prompt) for pair in pairs]
    expected = np.mean([np.log1p(np.exp(-(difference - 1.5 * used))) for difference in differences])
    settings = replace(SHORT, max_steps=1, batch_size=8, use_margin=used)
    found = train_reward_model(model, pairs, None, tmp_path / "model", settings, tokenizer=words)
    assert found.run.log[0]["loss"] == pytest.approx(expected, abs=1e-5)
    assert found.facts["pairs"]["with_margin"] == (8 if used else 0)


def test_seeds(tmp_path: Path) -> None:
    """The same seed gives the same weights to the last bit, from the first one on; another seed others."""
    pairs = tiny.pairs(48)
    seeds = {"first": 0, "again": 0, "other": 1}
    made = {name: train(tmp_path / name, pairs, settings=replace(SHORT, seed=seed)) for name, seed in seeds.items()}
    first, again, other = (weights(found.path) for found in made.values())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["score.weight"], other["score.weight"])


def test_the_process_is_as_before(tmp_path: Path) -> None:
    """Random generators, environment, loggers, gradients and the state that accelerate shares."""
    from accelerate.state import AcceleratorState, PartialState  # type: ignore[import-untyped]

    variables = dict(os.environ)
    import_trainer()  # a library that is imported has its own logger from then on
    assert dict(os.environ) == variables
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)

    def state() -> list[Any]:
        loggers = [logging.getLogger(name) for name in ("", "transformers", "trl", "datasets", "accelerate")]
        return [
            random.getstate(),
            np.random.get_state()[1].tolist(),  # type: ignore[index]  # noqa: NPY002
            torch.random.get_rng_state().tolist(),
            dict(os.environ),
            [(logger.level, list(logger.handlers)) for logger in loggers],
            torch.is_grad_enabled(),
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
            torch.get_default_dtype(),
            dict(AcceleratorState._shared_state),
            dict(PartialState._shared_state),
        ]

    with torch.inference_mode():
        before = state()
        train(tmp_path / "model", tiny.pairs(32), settings=replace(SHORT, max_steps=1))
        assert state() == before


@pytest.mark.parametrize(("how", "kept", "too_long", "cut"), [("leave_out", 44, 4, 0), ("cut", 48, 0, 4)])
def test_pairs_that_are_too_long_are_counted(tmp_path: Path, how: str, kept: int, too_long: int, cut: int) -> None:
    """TRL leaves them out without a word; here the report says how many."""
    long = [PreferencePair(f"which w{number} ?", "good " * 40, "w1") for number in range(4)]
    settings = replace(SHORT, max_steps=1, max_length=32, long_pairs=how)
    found = train(tmp_path / "model", PreferenceData([*tiny.pairs(44), *long]), settings=settings)
    told = found.facts["pairs"]
    assert (told["trained_on"], told["too_long"], told["cut"]) == (kept, too_long, cut)


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    """In the printed line and the card; a warning where it is much."""
    long = [PreferencePair(f"which w{number} ?", "good " * 40, "w1") for number in range(8)]
    odd = [PreferencePair("which w1 ?", "yyy", "xxx")]  # both are unknown words
    spoken = [PreferencePair(f"</s> </s> which w{number} ?", "good", "w1") for number in range(30)]
    data = PreferenceData([*tiny.pairs(8), *long, *odd, *spoken])
    with pytest.warns(UserWarning, match="pairs are left out|control tokens") as caught:
        found = train(tmp_path / "model", data, settings=replace(SHORT, max_steps=1, max_length=32))
    said = [str(one.message) for one in caught]
    assert said[0].startswith("9 of 47 pairs are left out: 8 are longer than max_length=32, 1 have the same tokens")
    assert "the texts hold 120 control tokens" in said[1]
    assert "obey_control_tokens=True" in said[1]
    line = "38 pairs (8 too long, left out, 1 the same as tokens, left out, 120 control tokens made plain text), 1 st"
    assert line in str(found)
    card = (found.path / "README.md").read_text()
    assert "| left out as too long | 8 |" in card
    assert "| control tokens made plain text | 120 |" in card


def test_one_update_is_one(tmp_path: Path) -> None:
    """A warm-up of a single update would have a learning rate of 0 and train nothing."""
    torch.manual_seed(0)
    model = library.LlamaForSequenceClassification(tiny.config(num_labels=1))
    before = model.score.weight.clone()
    words = tiny.tokenizer()
    found = train_reward_model(
        model, tiny.pairs(8), None, tmp_path / "model", replace(SHORT, max_steps=None), tokenizer=words
    )
    assert found.run.steps == 1
    assert not torch.equal(weights(found.path)["score.weight"], before)


@pytest.mark.parametrize(
    ("pairs", "settings", "said"),
    [
        ([], {}, "there are no pairs"),
        ([PreferencePair("q", "a", "a")], {}, "same text on both sides"),
        ([PreferencePair("q", "good " * 40, "w1")], {"long_pairs": "error", "max_length": 32}, "pairs 0 is .* longer"),
        ([PreferencePair("q", "good " * 40, "w1")], {"max_length": 32}, "raise max_length"),
        ([PreferencePair("q", "w1", "w2", margin=1.0), PreferencePair("r", "w1", "w2")], {}, "2 pairs have a margin"),
        ([PreferencePair(None, "a", "b"), PreferencePair("r", "a", "b")], {}, "1 of 2 pairs have no prompt"),
        ([PreferencePair("q", Sample(image="a.png"), Sample(image="b.png"))], {}, "images or videos"),
    ],
)
def test_pairs_that_cannot_be_learned_from(
    tmp_path: Path, pairs: list[PreferencePair], settings: dict[str, Any], said: str
) -> None:
    """They are refused with their position and what to do."""
    with pytest.raises(InputError, match=said):
        train(tmp_path / "model", PreferenceData(pairs), settings=replace(SHORT, **settings))


def test_answers_without_prompts(tmp_path: Path) -> None:
    """Told that there are none: a format without a prompt is chosen, and what the accuracy cannot know is said."""
    rows = [{"chosen": pair.chosen, "rejected": pair.rejected} for pair in tiny.pairs(40)]
    pairs = load_preferences(rows, columns={"prompt": None})
    found = train(tmp_path / "model", pairs, settings=replace(SHORT, max_steps=1, held_out=0.1))
    assert found.format.template == "{response}{eos_token}"
    assert len(found.reward(device="cpu")(response=["good w1", "w2"]).rewards) == 2
    assert "on 4 held-out pairs, prompts unknown (chance" in str(found)
    assert found.facts["pairs"]["held_out_prompts_trained_on"] is None
    assert found.facts["held_out"]["prompts"] is None
    card = (found.path / "README.md").read_text()
    assert "On 4 pairs, prompts unknown." in card
    assert "what was asked may have been trained on, too" in card


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "2?", "id": 3}, r"They may be in the column 'question': columns=\{'prompt': 'question'\}"),
        ({"instruction": "Add.", "input": "2"}, r"column 'instruction' \(or 'input'\).*--column prompt=instruction"),
        ({"id": 3}, r"Say which column holds it"),
        (
            {"chosen": "\n\nHuman: 2?\n\nAssistant: 2", "rejected": "\n\nHuman: 2?\n\nAssistant: 3"},
            r"--prompt-ends-with '\\n\\nAssistant:'",
        ),
    ],
)
def test_prompts_that_were_not_found(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    """A column of another name is no reason to learn without prompts: it is named, and nothing is trained."""
    rows = [{"chosen": "good w1", "rejected": "w2", **row}] * 3
    for held_out in (None, [PreferencePair("q", "a", "b")]):
        with pytest.raises(InputError, match=f"^3 of 3 pairs have no prompt .*{said}"):
            train(
                tmp_path / "model",
                load_preferences(rows),
                None if held_out is None else PreferenceData(held_out),
                SHORT,
            )
    with pytest.raises(InputError, match=r"^3 of 3 eval_pairs have no prompt"):
        train(tmp_path / "model", tiny.pairs(3), load_preferences(rows), SHORT)
    assert not (tmp_path / "model").exists()


def test_held_out_pairs_are_read_before_the_training(tmp_path: Path) -> None:
    """What the format has no place for is found at once, and not after hours; margins are none of the measurement's."""
    asked = [{"role": role, "content": "which w1 ?"} for role in ("user", "assistant", "user")]
    talk = PreferencePair(asked, [{"role": "assistant", "content": "w1"}], [{"role": "assistant", "content": "w2"}])
    with pytest.raises(InputError, match=r"held-out pairs 0, chosen: .*conversation"):
        train(tmp_path / "model", tiny.pairs(16), PreferenceData([talk]), SHORT)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("keep", [False, True])
def test_broken_off_in_the_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool) -> None:
    """The training is not lost: going on measures the same weights, and leaves what an unbroken run leaves."""
    settings = replace(QUICK, max_steps=4, keep_checkpoints=keep)
    folder, pairs = tmp_path / "model", tiny.pairs(64)

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("flux_rewards.training.train.held_out_accuracy", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(folder, pairs, settings=settings)
    before = weights(folder)
    with pytest.raises(ConfigError, match="measurement was broken off; set resume"):
        train(folder, pairs, settings=settings)
    with pytest.raises(ConfigError, match="another model, other pairs or other settings"):
        train(folder, pairs, settings=replace(settings, learning_rate=1e-3), resume=True)
    found = train(folder, pairs, settings=settings, resume=True)
    assert (found.run.steps, found.run.resumed_at, len(found.run.log)) == (4, 4, 5)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(folder).items())
    assert found.held_out is not None
    assert json.loads((folder / "reward_model.json").read_text())["training"]["held_out"] == found.held_out.to_dict()
    assert f"{found.accuracy:.3f}" in (folder / "README.md").read_text()
    assert (folder / "checkpoints").exists() is keep
    log = [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2, 3, 4]
    with pytest.raises(ConfigError, match="holds a trained model"):
        train(folder, pairs, settings=settings, resume=True)


@pytest.mark.slow
def test_going_on_after_an_end(tmp_path: Path) -> None:
    """From the checkpoint of the third step, a run ends with the weights of one that was never broken off."""
    settings = replace(QUICK, max_steps=6, save_every=3, held_out=0.0, keep_checkpoints=True)
    pairs = tiny.pairs(64)
    whole = train(tmp_path / "whole", pairs, settings=settings)
    broken = tmp_path / "broken" / "checkpoints"
    broken.mkdir(parents=True)
    shutil.copy(whole.path / "checkpoints" / "run.json", broken)
    shutil.copytree(whole.path / "checkpoints" / "checkpoint-3", broken / "checkpoint-3")
    (broken / "checkpoint-5").mkdir()  # killed while it was written
    with pytest.raises(ConfigError, match="is not empty"):
        train(tmp_path / "broken", pairs, settings=settings)
    with pytest.raises(ConfigError, match="another model, other pairs or other settings"):
        train(tmp_path / "broken", pairs, settings=replace(settings, weight_decay=0.1), resume=True)
    resumed = train(tmp_path / "broken", pairs, settings=settings, resume=True)
    assert (resumed.run.resumed_at, resumed.run.steps) == (3, 6)
    assert resumed.run.loss == pytest.approx(whole.run.loss)  # of all steps, not of those since the break
    first, second = weights(whole.path), weights(resumed.path)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_the_best_step_is_kept(tmp_path: Path) -> None:
    """Pairs at random teach nothing: the training ends early, with the weights of the lowest loss."""
    lots = random.Random(0)
    noise = PreferenceData(
        pair if lots.random() < 0.5 else replace(pair, chosen=pair.rejected, rejected=pair.chosen)
        for pair in tiny.pairs(200)
    )
    settings = replace(QUICK, epochs=20, validation=0.2, evaluate_every=4, patience=2, keep_checkpoints=True)
    found = train(tmp_path / "model", noise, settings=settings)
    looks = {entry["step"]: entry["eval_loss"] for entry in found.run.log if "eval_loss" in entry}
    assert found.run.best_step is not None
    assert found.run.best_step == min(looks, key=lambda step: looks[step])
    assert found.run.steps == found.run.best_step + 2 * 4
    best = weights(tmp_path / "model" / "checkpoints" / f"checkpoint-{found.run.best_step}")
    assert all(torch.equal(tensor, best[name]) for name, tensor in weights(found.path).items())
    parts = found.facts["pairs"]
    assert (parts["trained_on"], parts["validation"], parts["held_out"]) == (140, 40, 20)


def test_a_loss_that_is_no_number_ends_it(tmp_path: Path) -> None:
    """Weights of NaN are an error at the first step, and never a model."""
    model = library.LlamaForSequenceClassification(tiny.config(num_labels=1))
    with torch.no_grad():
        model.score.weight.fill_(float("nan"))
    with pytest.raises(ComputeError, match="the loss is nan at step 1; lower learning_rate"):
        train_reward_model(model, tiny.pairs(32), None, tmp_path / "model", SHORT, tokenizer=tiny.tokenizer())
    assert not (tmp_path / "model" / "reward_model.json").exists()


def causal_model(folder: Path, **changes: Any) -> Path:
    """A language model with its tokenizer, saved."""
    torch.manual_seed(0)
    library.LlamaForCausalLM(tiny.config(**changes)).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's use of transformers
@pytest.mark.parametrize("merge", [False, True])
def test_adapters(tmp_path: Path, merge: bool) -> None:
    """A language model gets a head and an adapter; what is saved scores as peft itself has it."""
    base = causal_model(tmp_path / "base")
    lora = LoraSettings(rank=4, targets=["q_proj", "v_proj"], dropout=0.0, merge=merge)
    settings = replace(QUICK, max_steps=4, lora=lora)
    found = train_reward_model(str(base), tiny.pairs(64), None, tmp_path / "model", settings)
    assert (found.path / "adapter_config.json").exists() is not merge
    assert found.facts["drawn_anew"] == ["score.weight"]
    if merge:
        model = library.AutoModelForSequenceClassification.from_pretrained(found.path).eval()
    else:
        peft: Any = pytest.importorskip("peft")
        start = library.AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
        model = peft.PeftModel.from_pretrained(start, found.path).eval()
    sample = Sample("which w1 ?", "good w2")
    with torch.no_grad():
        text = tiny.tokenizer()("which w1 ?\ngood w2</s>", return_tensors="pt")
        expected = float(model(**text).logits[0, 0])
    assert found.reward(device="cpu")([sample]).rewards == pytest.approx([expected], abs=1e-5)


def _without_a_layer(folder: Path) -> Path:
    from safetensors.torch import save_file

    kept = weights(causal_model(folder))
    del kept["model.layers.0.mlp.up_proj.weight"]
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _with_two_labels(folder: Path) -> Path:
    library.LlamaForSequenceClassification(tiny.config(num_labels=2)).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's use of transformers
def test_an_adapter_of_an_encoder(tmp_path: Path) -> None:
    """A base with another head and without a pooler: merged, for what is saved must be loadable."""
    base = tmp_path / "base"
    library.BertForMaskedLM(tiny.config("bert")).save_pretrained(base)
    tiny.tokenizer("bert").save_pretrained(base)
    settings = replace(QUICK, max_steps=4, lora=LoraSettings(rank=4))
    with pytest.raises(ConfigError, match=r"cls\.predictions\..*set lora\.merge"):
        train_reward_model(str(base), tiny.pairs(64), None, tmp_path / "model", settings)
    settings = replace(settings, lora=LoraSettings(rank=4, merge=True))
    found = train_reward_model(str(base), tiny.pairs(64), None, tmp_path / "model", settings)
    assert {"classifier.weight", "bert.pooler.dense.weight"} < set(found.facts["drawn_anew"])
    assert found.accuracy is not None
    model = library.AutoModelForSequenceClassification.from_pretrained(found.path).eval()
    with torch.no_grad():
        expected = float(model(**tiny.tokenizer("bert")("which w1 ?", "good w2", return_tensors="pt")).logits[0, 0])
    assert found.reward(device="cpu")([Sample("which w1 ?", "good w2")]).rewards == pytest.approx([expected], abs=1e-5)


@pytest.mark.parametrize(
    ("make", "settings", "said"),
    [
        (lambda _: 3, {}, "model must be a hub id"),
        (lambda _: "neither a path nor an id", {}, "neither a path that exists nor a hub id"),
        (lambda _: tiny.config(), {"lora": LoraSettings()}, "set lora.merge"),
        (lambda _: tiny.config(), {"lora": LoraSettings(), "quantization": "8bit", "device": None}, "in memory is not"),
        (lambda _: tiny.config(), {"max_length": 128}, "reads 64 tokens"),
        (lambda _: tiny.config(), {"format": TextFormat("chat")}, "no chat template"),
        (lambda _: tiny.config(vocab_size=10), {}, "it is another model's"),
        (lambda _: library.LlamaForSequenceClassification(tiny.config(num_labels=2)), {}, "num_labels=1"),
        (causal_model, {"lora": LoraSettings(targets=["query"])}, "linear layers are .*q_proj"),
    ],
)
def test_models_that_training_cannot_start_from(
    tmp_path: Path, make: Callable[[Path], Any], settings: dict[str, Any], said: str
) -> None:
    """Each is refused with the reason, and nothing is written."""
    with pytest.raises(ConfigError, match=said):
        train_reward_model(
            make(tmp_path / "base"),
            tiny.pairs(16),
            None,
            tmp_path / "model",
            replace(SHORT, **settings),
            tokenizer=tiny.tokenizer(),
        )
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("make", "said"),
    [(_without_a_layer, "model.layers.0.mlp.up_proj.weight"), (_with_two_labels, "score.weight")],
)
def test_checkpoints_that_do_not_fit(tmp_path: Path, make: Callable[[Path], Path], said: str) -> None:
    """A head may be drawn where there was none; what lies below it may not."""
    with pytest.raises(WeightsError, match=said):
        train_reward_model(make(tmp_path / "base"), tiny.pairs(16), None, tmp_path / "model", SHORT)


def test_a_model_in_memory_needs_its_tokenizer(tmp_path: Path) -> None:
    """A configuration does not say which one it is."""
    with pytest.raises(ConfigError, match="pass tokenizer="):
        train_reward_model(tiny.config(), tiny.pairs(16), None, tmp_path / "model", SHORT)


def test_bitsandbytes_is_asked_for_first(tmp_path: Path) -> None:
    """What this machine cannot do is said before a model is looked for."""
    settings = TrainingSettings(quantization="4bit", lora=LoraSettings())
    with pytest.raises((MissingDependencyError, ConfigError), match=r"needs bitsandbytes|needs a GPU"):
        train_reward_model(str(causal_model(tmp_path / "base")), tiny.pairs(16), None, tmp_path / "model", settings)


def test_prompts_that_leak_are_told(tmp_path: Path) -> None:
    """Held-out pairs whose prompts were trained on flatter; the card says so, too."""
    pairs = tiny.pairs(40)
    with pytest.warns(UserWarning, match="40 prompts of eval_pairs are among pairs"):
        found = train(tmp_path / "model", pairs, pairs, replace(SHORT, max_steps=1))
    assert "40 of these prompts were trained on" in (found.path / "README.md").read_text()


@pytest.mark.slow
def test_one_model_an_aspect(tmp_path: Path) -> None:
    """The configuration that is written adds the scores of all aspects, by the weights."""
    pairs = PreferenceData(
        [*tiny.pairs(24, metadata={"aspect": "helpful"}), *tiny.pairs(24, seed=1, metadata={"aspect": "harmless"})]
    )
    found = train_aspects(
        tiny.config(),
        pairs,
        output_dir=tmp_path / "models",
        weights={"harmless": 0.5},
        settings=replace(SHORT, max_steps=2),
        tokenizer=tiny.tokenizer(),
    )
    sample = Sample("which w1 ?", "good w2")
    helpful, harmless = (found.models[name].reward()([sample]).rewards for name in ("helpful", "harmless"))
    batch = load_rewards(found.config).train([sample])
    assert batch.rewards == pytest.approx(helpful + 0.5 * harmless, abs=1e-6)
    assert list(batch.parts) == ["helpful", "harmless"]
