"""A service that fails now and then, and a training run that survives it."""

from flux_rewards import CircuitBreaker, FunctionReward, MaskErrors, RemoteError, Retry, Sample, Timeout

failed: set[str] = set()


def service(sample: Sample) -> float:
    """Stands for a request: busy at first for some, broken for one."""
    text = sample.response_text
    if text == "unlucky":
        raise ValueError("the service cannot read this")
    if text.startswith("b") and text not in failed:
        failed.add(text)
        raise RemoteError("status 429", retryable=True, retry_after=0.01)
    return float(len(text))


def main() -> None:
    """Score a batch."""
    patient = Retry(Timeout(FunctionReward(service, num_workers=4), 30), attempts=3, wait=0.01)
    reward = MaskErrors(CircuitBreaker(patient), max_failure_rate=0.25)
    batch = reward(response=["a", "bb", "unlucky", "bbbb", "ccccc"])
    print(batch.rewards)  # the one that failed is NaN
    print(batch.errors)  # and here is why
    print("calls", batch.stats["service"].calls, "retries", batch.stats["service"].retries)


if __name__ == "__main__":
    main()
