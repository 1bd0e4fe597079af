"""Rewards turned into log-odds and probabilities."""

from __future__ import annotations

import builtins
import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flux_rewards import (
    ComputeError,
    FunctionReward,
    InputError,
    LengthReward,
    MissingDependencyError,
    RewardFunction,
    Sample,
    load_rewards,
    to_config,
)
from flux_rewards.errors import ConfigError
from flux_rewards.testing import reward_checks
from flux_rewards.training.calibrated import Calibrated
from flux_rewards.training.calibration import fit_isotonic, fit_platt, fit_platt_to_pairs
from flux_rewards.training.evaluate import evaluate_preferences
from flux_rewards.training.preferences import PreferencePair

pytest.importorskip("sklearn")


class Stated(RewardFunction):
    """The number that a response is; none for "n/a"."""

    required_fields = ("response",)
    optional_fields = ()

    def compute_reward(self, sample: Sample) -> float | None:
        return None if sample.response == "n/a" else float(sample.response_text)


class Cost(Stated):
    """Less is better."""

    higher_is_better = False


def pairs_with_slope(slope: float, count: int = 4000, seed: int = 0) -> list[PreferencePair]:
    """Pairs whose first answer wins as Bradley and Terry say, with log-odds of `slope` times the difference."""
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(count, 2))
    wins = generator.random(count) < 1 / (1 + np.exp(-slope * (scores[:, 0] - scores[:, 1])))
    ordered = np.where(wins[:, None], scores, scores[:, ::-1])
    return [PreferencePair(f"{number}?", str(one), str(other)) for number, (one, other) in enumerate(ordered.tolist())]


def newton(inputs: Any, targets: Any) -> Any:
    """Maximum likelihood of a logistic model, as textbooks write it."""
    weights = np.zeros(inputs.shape[1])
    for _ in range(50):
        chances = 1 / (1 + np.exp(-inputs @ weights))
        hessian = (inputs * (chances * (1 - chances))[:, None]).T @ inputs
        weights += np.linalg.solve(hessian, inputs.T @ (targets - chances))
    return weights


def test_platt_is_the_maximum_of_the_likelihood() -> None:
    """Slope and intercept are those of Newton's method with Platt's targets."""
    generator = np.random.default_rng(1)
    scores = generator.normal(3.0, 5.0, size=300)
    labels = (generator.random(300) < 1 / (1 + np.exp(1 - 0.4 * scores))).astype(float)
    positive, negative = labels.sum(), 300 - labels.sum()
    targets = np.where(labels == 1, (positive + 1) / (positive + 2), 1 / (negative + 2))
    slope, intercept = newton(np.stack([scores, np.ones(300)], axis=1), targets)
    fitted = fit_platt(scores, labels)
    assert [fitted.slope, fitted.intercept] == pytest.approx([slope, intercept], rel=1e-6)


def test_platt_of_pairs_is_the_maximum_of_the_likelihood() -> None:
    """The slope is that of Newton's method over differences, without an intercept."""
    generator = np.random.default_rng(2)
    chosen, rejected = generator.normal(0.5, 1, size=100), generator.normal(0, 1, size=100)
    (slope,) = newton((chosen - rejected)[:, None], np.full(100, 101 / 102))
    fitted = fit_platt_to_pairs(chosen, rejected)
    assert fitted.slope == pytest.approx(slope, rel=1e-6)
    assert fitted.log_odds(np.concatenate([chosen, rejected])).mean() == pytest.approx(0.0, abs=1e-12)


def test_isotonic_pools_adjacent_violators() -> None:
    """Means of the blocks that pooling by hand gives, within the bounds of the sample."""
    fitted = fit_isotonic(np.arange(6.0), np.array([0.0, 1.0, 0.0, 0.0, 1.0, 1.0]))
    values = 1 / (1 + np.exp(-fitted.log_odds(np.arange(6.0))))
    assert values == pytest.approx([1 / 8, 1 / 3, 1 / 3, 1 / 3, 7 / 8, 7 / 8])
    beyond = 1 / (1 + np.exp(-fitted.log_odds(np.array([-9.0, 99.0, 3.5]))))
    assert beyond == pytest.approx([1 / 8, 7 / 8, (1 / 3 + 7 / 8) / 2])


@pytest.mark.parametrize("slope", [0.3, 3.0])
@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_calibration_gets_better(slope: float, method: str) -> None:
    """Scores that are too bold, or too shy, are set right: on the folds, and on pairs that nobody has seen."""
    fitted = Calibrated.fit(Stated(), pairs_with_slope(slope), method=method)
    assert fitted.facts is not None
    assert fitted.facts["ece_after"] < 0.04 < fitted.facts["ece_before"]
    assert fitted.facts["brier_after"] < fitted.facts["brier_before"]
    if method == "platt":
        assert fitted.slope == pytest.approx(slope, rel=0.1)
    unseen = pairs_with_slope(slope, 2000, seed=9)
    before, after = (evaluate_preferences(reward, unseen, resamples=0) for reward in (Stated(), fitted))
    assert before.calibration is not None
    assert after.calibration is not None
    assert after.calibration.ece < 0.05 < before.calibration.ece
    assert after.calibration.brier < before.calibration.brier
    if method == "platt":
        assert after.accuracy == before.accuracy


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_labels_give_probabilities(method: str) -> None:
    """A fit to labels says how often an answer of such a score is good."""
    generator = np.random.default_rng(3)
    scores = generator.normal(size=3000)
    labels = generator.random(3000) < 1 / (1 + np.exp(-(2 * scores - 1)))
    samples = [Sample(f"{number}?", str(score)) for number, score in enumerate(scores.tolist())]
    fitted = Calibrated.fit(Stated(), samples, labels=labels.tolist(), method=method)
    assert fitted.output == "probability"
    assert fitted.bounds == (0.0, 1.0)
    found = fitted(response=["-1", "0.5", "1.5"]).rewards
    assert found == pytest.approx([1 / (1 + math.exp(-(2 * score - 1))) for score in (-1, 0.5, 1.5)], abs=0.08)
    assert fitted.facts is not None
    assert fitted.facts["ece_after"] < 0.05 < fitted.facts["ece_before"]


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_where_less_is_better(method: str) -> None:
    """A cost is turned: the result is the same as of its negative, and more is better then."""
    pairs = pairs_with_slope(1.0, 400)
    swapped = [PreferencePair(pair.prompt, pair.rejected, pair.chosen) for pair in pairs]
    fitted = Calibrated.fit(Cost(), swapped, method=method, output="probability")
    values = fitted(response=["-1", "0", "1"]).rewards
    assert fitted.higher_is_better
    assert values[0] > values[1] > values[2]
    assert evaluate_preferences(fitted, swapped).accuracy.half == pytest.approx(
        evaluate_preferences(Cost(), swapped).accuracy.half, abs=0.03
    )


def test_what_disagrees_cannot_be_calibrated() -> None:
    """The wrong way round, or without differences, nothing is fitted; flipping the sign is for the user."""
    pairs = pairs_with_slope(2.0, 200)
    swapped = [PreferencePair(pair.prompt, pair.rejected, pair.chosen) for pair in pairs]
    for method in ("platt", "isotonic"):
        with pytest.raises(ComputeError, match="do not agree"):
            Calibrated.fit(Stated(), swapped, method=method)
        with pytest.raises(ComputeError, match="do not agree"):
            Calibrated.fit(Stated(), [PreferencePair("q", "1", "1.0")], method=method)


def test_a_perfect_reward_has_a_finite_slope() -> None:
    """Where every pair agrees, the targets keep the slope finite."""
    fitted = Calibrated.fit(Stated(), [PreferencePair(f"{number}?", "1", "0") for number in range(98)])
    assert fitted.slope == pytest.approx(math.log(99))


def test_what_has_no_score_is_left_out() -> None:
    """Pairs to which the reward does not apply are counted; none at all is an error."""
    pairs = [*pairs_with_slope(1.0, 50), PreferencePair("q", "n/a", "1")]
    fitted = Calibrated.fit(Stated(), pairs)
    assert fitted.facts is not None
    assert (fitted.facts["count"], fitted.facts["left_out"]) == (50, 1)
    with pytest.raises(InputError, match="none of 1 has a score"):
        Calibrated.fit(Stated(), pairs[-1:])
    assert np.isnan(fitted(response=["n/a"]).rewards[0])


def test_one_prompt_cannot_be_judged() -> None:
    """Folds by prompt need two prompts: what was not held out is no number."""
    facts = Calibrated.fit(Stated(), [PreferencePair("q", "1", "0"), PreferencePair("q", "2", "0")]).facts
    assert facts is not None
    assert (facts["count"], facts["ece_after"], facts["brier_after"]) == (2, None, None)
    assert facts["brier_before"] == pytest.approx((0.268941**2 + 0.119203**2) / 2, abs=1e-6)


def calibrations() -> list[Calibrated]:
    inner = LengthReward(40)
    knots: dict[str, Any] = {"method": "isotonic", "scores": [0.0, 0.3, 1.0], "probabilities": [0.1, 0.4, 0.9]}
    return [
        Calibrated(inner, slope=2.0, intercept=-1.0),
        Calibrated(inner, slope=2.0, output="probability", facts={"count": 3}),
        Calibrated(inner, **knots),
        Calibrated(inner, **knots, output="probability", name="good"),
    ]


@pytest.mark.parametrize("index", range(4))
def test_it_keeps_the_contract(index: int) -> None:
    """The contract of every reward."""
    for check in reward_checks(calibrations()[index]):
        check()


@pytest.mark.parametrize("index", range(4))
def test_it_goes_through_files(tmp_path: Path, index: int) -> None:
    """A pickle, a configuration as JSON, and its own file give the same scores."""
    calibrated = calibrations()[index]
    calibrated.save(tmp_path / "calibration.json")
    config = json.loads(json.dumps(to_config(calibrated)))
    copies = [
        pickle.loads(pickle.dumps(calibrated)),
        load_rewards(config).train.children[0],
        Calibrated.from_file(LengthReward(40), tmp_path / "calibration.json"),
    ]
    texts = ["one", "one two three " * 4, "word " * 40]
    for copy in copies:
        assert np.array_equal(copy(response=texts).rewards, calibrated(response=texts).rewards)
    assert copies[2].facts == calibrated.facts


def test_values_by_hand() -> None:
    """Log-odds and probabilities of a known score; the parts keep the score itself."""
    half = FunctionReward(lambda sample: 0.5, name="half")
    batch = Calibrated(half, slope=4.0, intercept=-1.0)([Sample()])
    assert batch.rewards.tolist() == [1.0]
    assert batch.parts["half"].rewards.tolist() == [0.5]
    knots: dict[str, Any] = {"method": "isotonic", "scores": [0.0, 1.0], "probabilities": [0.2, 0.4]}
    assert Calibrated(half, **knots)([Sample()]).rewards == pytest.approx([math.log(0.3 / 0.7)])
    assert Calibrated(half, **knots, output="probability")([Sample()]).rewards == pytest.approx([0.3])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "needs slope"),
        ({"slope": 0.0}, "slope=0 says otherwise"),
        ({"slope": -1.0}, "more of LengthReward is better"),
        ({"slope": 1.0, "scores": [1, 2]}, "are for method='isotonic'"),
        ({"slope": float("inf")}, "slope must be a finite number"),
        ({"slope": 1.0, "method": "beta"}, "method must be one of"),
        ({"slope": 1.0, "output": "odds"}, "output must be one of"),
        ({"method": "isotonic"}, "two knots at least"),
        ({"method": "isotonic", "slope": 1.0}, "slope is for method='platt'"),
        ({"method": "isotonic", "scores": [0, 1], "probabilities": [0.1]}, "two knots at least"),
        ({"method": "isotonic", "scores": [0, 1, 2], "probabilities": [0.1, 0.2]}, "3 scores and 2 probabilities"),
        ({"method": "isotonic", "scores": [1, 0], "probabilities": [0.1, 0.2]}, "scores must rise"),
        ({"method": "isotonic", "scores": [0, 1], "probabilities": [0.2, 0.1]}, "probabilities rise or stay"),
        ({"method": "isotonic", "scores": [0, 1], "probabilities": [0.1, 1.0]}, "must be below 1"),
        ({"method": "isotonic", "scores": [0, 1], "probabilities": [0, 0.5]}, "> 0"),
    ],
)
def test_bad_parameters(parameters: dict[str, Any], message: str) -> None:
    """What does not fit the method or the reward is refused."""
    with pytest.raises(ConfigError, match=message):
        Calibrated(LengthReward(40), **parameters)


@pytest.mark.parametrize(
    ("data", "labels", "message"),
    [
        ([], None, "expected pairs, or samples with labels"),
        ([Sample(response="1")], None, "expected pairs, or samples with labels"),
        ([PreferencePair("q", "1", "0")], [1], "expected pairs, or samples with labels"),
        ([Sample(response="1")], [1, 0], "2 labels for 1 samples"),
        ([Sample(response="1")] * 2, [1, 2], "a label is 0 or 1, found 2"),
        ([Sample(response="1")] * 2, [1, 1], "all labels are 1"),
    ],
)
def test_bad_data(data: Any, labels: Any, message: str) -> None:
    """What cannot be fitted to is an error that says why."""
    with pytest.raises(InputError, match=message):
        Calibrated.fit(Stated(), data, labels=labels)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": "other"}', '{"format": "flux_rewards.calibration", "version": 2}']
)
def test_a_file_that_is_no_calibration(tmp_path: Path, text: str) -> None:
    """Another file is an error with its path."""
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"a\.json"):
        Calibrated.from_file(Stated(), path)


def test_gradients_pass_through() -> None:
    """Platt is differentiable where its reward is; steps are not."""
    torch = pytest.importorskip("torch")
    smooth, _, stepped, _ = calibrations()
    scores = torch.tensor([0.5], requires_grad=True)
    folded = smooth.fold([scores])
    folded.sum().backward()
    assert (folded.item(), scores.grad.item()) == (0.0, 2.0)
    assert not stepped.differentiable


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fitting says what to install; scoring does not need it."""
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r"pip install 'flux_rewards\[train\]'"):
        Calibrated.fit(Stated(), pairs_with_slope(1.0, 10))
    assert Calibrated(Stated(), slope=1.0)(response=["2"]).rewards.tolist() == [2.0]
