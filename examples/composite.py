"""Several rewards as one: weights, ranks, gates, and a failure that stays one."""

from flux_rewards import (
    CompositeReward,
    FunctionReward,
    Gate,
    GroupRank,
    LengthReward,
    MaskErrors,
    NumericAnswerReward,
    Sample,
)


def flaky(sample: Sample) -> float:
    """A reward that fails for one sample."""
    if "five" in sample.response_text:
        raise ConnectionError("the service hung up")
    return 1.0


def main() -> None:
    """Score a group of three."""
    correct = NumericAnswerReward()
    brief = LengthReward(target=4)
    reward = CompositeReward(
        {
            "correct": (correct, 1.0),
            "brief": (Gate(GroupRank(brief), when=correct, at_least=1.0), 0.5),
            "service": (MaskErrors(FunctionReward(flaky), max_failure_rate=0.5), 0.1),
        }
    )
    answers = ["The answer is 4", "I think that it may well be 4", "It is five, no: 5"]
    batch = reward([Sample("2 + 2?", answer, reference="4") for answer in answers])
    print("total  ", batch.rewards)
    for name, part in batch.parts.items():
        print(f"{name:8}", part.rewards)
    print("errors ", batch.errors)


if __name__ == "__main__":
    main()
