"""The trainer's side of server.py: its scores in a composite, beside a reward that runs here.

    python server.py                                     # in the reward's environment
    python trainer.py --url http://127.0.0.1:8000        # in the trainer's

A token is taken from REWARD_TOKEN.
"""

import argparse
import os
import sys

from PIL import Image

from flux_rewards import CompositeReward, FluxRewardsError, JPEGCompressibility, RemoteReward

PROMPTS = ["a black cat in a coal cellar", "fog", "a polar bear in the snow"]
SHADES = [(0, 0, 0), (128, 128, 128), (255, 255, 255)]


def main() -> int:
    """Score three images, and print the total and what each part said."""
    parser = argparse.ArgumentParser(description="Score images with the help of server.py.")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the server (default: %(default)s)")
    brightness = RemoteReward(
        parser.parse_args().url,
        protocol="flow_factory",
        required_fields=("prompt", "image"),  # what is sent: this protocol does not say what the server reads
        token=os.environ.get("REWARD_TOKEN"),
        name="brightness",
    )
    reward = CompositeReward([(brightness, 1.0), (JPEGCompressibility(), 0.1)])
    try:
        batch = reward(prompt=PROMPTS, image=[Image.new("RGB", (64, 64), shade) for shade in SHADES])
    except FluxRewardsError as error:  # no server, another token, a reward that failed: never a number
        print(error, file=sys.stderr)
        return 1
    for index, prompt in enumerate(PROMPTS):
        parts = "  ".join(f"{name} {part.rewards[index]:.4f}" for name, part in batch.parts.items())
        print(f"{prompt:30}  total {batch.rewards[index]:.4f}  {parts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
