"""`PickScore` on images and on videos, against the loop that most trainers run today.

    python tests/benchmarks/image.py          # a CPU: ViT-B/32
    python tests/benchmarks/image.py --gpu    # CUDA: ViT-H/14, as PickScore is, in bfloat16

The peer does what the reward code of flow_grpo and Flow-Factory does with a float tensor (N, 3, H, W) from a decoder:
to 8 bits, to PIL, through transformers' `CLIPProcessor`, and through both towers for every image, or every frame of a
video. Weights are random, in files of the real format; tokenizer, sizes and number of tokens are the real ones. Batch
sizes are alike, rounds interleaved, and prompts new in each round, so that none is known from the one before.

One row is a bound: the image tower alone, as transformers runs it, on pixels prepared beforehand. With ``--gpu``
its operations, counted, are compared with what a large matrix product reaches on the same card in the same run.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from flux_rewards import PickScore, RewardFunction, Sample, VideoReward

if TYPE_CHECKING:
    from numpy.typing import NDArray

PEER, OURS, TOWER = "PIL, processor, both towers", "flux_rewards", "image tower alone"
SHORT = (
    "portrait of a red fox in a green coat, sitting on an old wooden chair in a snowy forest, oil painting, number {}"
)
LONG = " ".join([SHORT.removesuffix(" number {}"), SHORT, SHORT.format("two, again and again, once more")])

VIT_B_32: dict[str, Any] = {}  # what transformers' CLIPConfig is unless told otherwise
VIT_H_14: dict[str, Any] = {
    "projection_dim": 1024,
    "text_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "hidden_act": "gelu",
        "projection_dim": 1024,
    },
    "vision_config": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "patch_size": 14,
        "hidden_act": "gelu",
        "projection_dim": 1024,
    },
}


@dataclass(frozen=True)
class Setting:
    """What runs where."""

    config: dict[str, Any]
    device: str
    dtype: str
    batch_size: int
    rounds: int
    images: tuple[int, int, int, int]  # prompts, images of each, height, width
    videos: tuple[int, int, int, int, int]  # prompts, videos of each, frames, height, width


CPU = Setting(VIT_B_32, "cpu", "float32", 16, 5, (4, 16, 512, 512), (1, 8, 32, 256, 448))
GPU = Setting(VIT_H_14, "cuda", "bfloat16", 64, 9, (16, 16, 1024, 1024), (4, 8, 32, 480, 832))


def checkpoint(folder: Path, setting: Setting) -> Path:
    """Random weights, and the tokenizer that CLIP has, from the vocabulary that comes with open_clip."""
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    known = SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(token, token): number for token, number in known.encoder.items()}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=list(known.bpe_ranks), model_max_length=77)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor().save_pretrained(folder)
    torch.manual_seed(0)
    with torch.device(setting.device):
        CLIPModel(CLIPConfig(**setting.config)).to(getattr(torch, setting.dtype)).save_pretrained(folder)
    return folder


class Peer:
    """The usual loop."""

    def __init__(self, folder: Path, setting: Setting) -> None:
        from transformers import CLIPModel, CLIPProcessor

        self.setting = setting
        self.dtype = getattr(torch, setting.dtype)
        self.processor = CLIPProcessor.from_pretrained(folder)
        self.model = CLIPModel.from_pretrained(folder, dtype=self.dtype).eval().to(setting.device)

    @torch.no_grad()
    def images(self, prompts: Sequence[str], pixels: torch.Tensor) -> list[float]:
        """Scores of (N, 3, H, W)."""
        size = self.setting.batch_size
        scores: list[float] = []
        for start in range(0, len(pixels), size):
            scores += self._batch(prompts[start : start + size], pixels[start : start + size])
        return scores

    def videos(self, prompts: Sequence[str], pixels: torch.Tensor) -> list[float]:
        """Scores of (N, T, 3, H, W): the mean over the frames, each with its prompt."""
        frames = pixels.shape[1]
        flat = self.images([prompt for prompt in prompts for _ in range(frames)], pixels.flatten(0, 1))
        return [float(score) for score in np.array(flat).reshape(-1, frames).mean(axis=1)]

    def tokens(self, prompt: str) -> int:
        """How long a prompt is, as the text tower reads it."""
        return len(self.processor.tokenizer(prompt, truncation=True, max_length=77)["input_ids"])

    def _batch(self, prompts: Sequence[str], pixels: torch.Tensor) -> list[float]:
        levels = (pixels * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy().transpose(0, 2, 3, 1)
        return self.pictures(prompts, [Image.fromarray(image) for image in levels])

    @torch.no_grad()
    def pictures(self, prompts: Sequence[str], images: Sequence[Image.Image]) -> list[float]:
        """Scores of PIL images, all at once."""
        device = self.setting.device
        seen = self.processor(images=images, return_tensors="pt").to(device)
        read = self.processor(text=list(prompts), padding=True, truncation=True, max_length=77, return_tensors="pt")
        with torch.autocast(device, dtype=self.dtype, enabled=self.dtype != torch.float32):
            image = pooled(self.model.get_image_features(**seen))
            text = pooled(self.model.get_text_features(**read.to(device)))
        image, text = (features / features.norm(dim=-1, keepdim=True) for features in (image, text))
        scores = self.model.logit_scale.exp() * (text @ image.T)
        found: list[float] = (scores.diag() / 26).tolist()
        return found

    @torch.no_grad()
    def tower(self, prepared: torch.Tensor) -> None:
        """The image tower over pixels that are prepared already."""
        for part in prepared.split(self.setting.batch_size):
            pooled(self.model.get_image_features(pixel_values=part)).float().cpu()


def pooled(features: Any) -> torch.Tensor:
    """Transformers 5 gives an output object, 4 a tensor."""
    found: torch.Tensor = getattr(features, "pooler_output", features)
    return found


def by_peer(score: Callable[..., list[float]], prompts: Iterator[list[str]], pixels: torch.Tensor) -> list[float]:
    """Scores for the next prompts."""
    return score(next(prompts), pixels)


def by_us(reward: RewardFunction, prompts: Iterator[list[str]], pixels: torch.Tensor) -> Any:
    """Scores for the next prompts."""
    field = "image" if pixels.ndim == 4 else "video"
    return reward([Sample(prompt, **{field: one}) for prompt, one in zip(next(prompts), pixels, strict=True)]).rewards


def new_prompts(prompts: int, each: int, text: str) -> Iterator[list[str]]:
    """Those of one round after the other; the number stands where it is not cut off."""
    for step in itertools.count():
        numbers = range(step * prompts, (step + 1) * prompts)
        yield [f"{number} {text.format(number)}" for number in numbers for _ in range(each)]


def pictures(*shape: int, device: str) -> torch.Tensor:
    """Smooth float pixels in [0, 1], as photographs rather than noise are."""
    generator = torch.Generator(device).manual_seed(0)
    rough = torch.rand((*shape[:-2], 12, 12), generator=generator, device=device).flatten(0, -4)
    smooth = torch.nn.functional.interpolate(rough, size=shape[-2:], mode="bicubic")
    return smooth.clamp_(0, 1).view(shape)


def timed(runs: dict[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, NDArray[np.float64]], float]:
    """Seconds of each, round by round after one to warm up, and how far their scores and ours were ever apart."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    apart = 0.0
    for step in range(rounds + 1):
        scores: dict[str, Any] = {}
        for name, run in runs.items():
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            started = time.perf_counter()
            scores[name] = run()  # ends with numbers on the CPU, so the device has nothing left to do
            if step:
                seconds[name].append(time.perf_counter() - started)
        apart = max(apart, float(np.abs(np.array(scores[OURS]) - np.array(scores[PEER])).max()))
    return {name: np.array(times) for name, times in seconds.items()}, apart


def measured(folder: Path, setting: Setting, table: Table) -> float:
    """One row a contender; returns our images a second."""
    options: Any = {"device": setting.device, "dtype": setting.dtype, "batch_size": setting.batch_size}
    reward = PickScore(str(folder), processor_name_or_path=str(folder), **options)
    peer = Peer(folder, setting)
    fastest = 0.0
    for kind, ours, theirs, (prompts, each, *frames, height, width), texts, rounds in (
        ("images", reward, peer.images, setting.images, (SHORT, LONG), setting.rounds),
        ("videos", VideoReward(reward), peer.videos, setting.videos, (SHORT,), setting.rounds // 2 + 1),
    ):
        given = pictures(prompts * each, *frames, 3, height, width, device=setting.device)
        count = given.shape[:-3].numel()
        for text in texts:
            for_peer, for_us = (new_prompts(prompts, each, text) for _ in "ab")
            runs: dict[str, Callable[[], Any]] = {
                PEER: functools.partial(by_peer, theirs, for_peer, given),
                OURS: functools.partial(by_us, ours, for_us, given),
            }
            if kind == "images" and text == SHORT:
                prepared = pictures(len(given), 3, 224, 224, device=setting.device).to(peer.dtype)
                runs[TOWER] = functools.partial(peer.tower, prepared)
            found, apart = timed(runs, rounds)
            # Theirs come from pixels in 8 bits, and in a half precision from features in it.
            assert apart < (2e-3 if setting.dtype == "float32" else 0.1), apart
            rates = {name: count / float(np.median(seconds)) for name, seconds in found.items()}
            for name, seconds in found.items():
                ratio = f"{np.median(found[PEER] / seconds):.2f}"  # of each round: a busy machine slows both
                told = (f"{rates[name]:.1f}", ratio, f"{apart:.0e}" if name == OURS else "")
                table.add_row(name, f"{len(given)} {kind}", str(peer.tokens(next(for_us)[0])), *told)
            table.add_section()
            fastest = max(fastest, rates[OURS]) if kind == "images" else fastest
    return fastest


def operations(config: dict[str, Any]) -> float:
    """Of the image tower for one image: two for each weight and token, and the products of attention."""
    vision = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "patch_size": 32}
    vision |= config.get("vision_config", {})
    width, patch = vision["hidden_size"], vision["patch_size"]
    patches = (224 // patch) ** 2
    weights = 4 * width * width + 2 * width * vision["intermediate_size"]
    layer = 2 * (patches + 1) * weights + 4 * (patches + 1) ** 2 * width
    return float(vision["num_hidden_layers"] * layer + 2 * patches * 3 * patch**2 * width)


def peak(setting: Setting, size: int = 8192, times: int = 20) -> float:
    """Operations a second of a large matrix product, the best of several."""
    left, right = (torch.randn(size, size, device=setting.device, dtype=getattr(torch, setting.dtype)) for _ in "ab")
    seconds = []
    for _ in range(times):
        started, ended = (torch.cuda.Event(enable_timing=True) for _ in "ab")
        started.record()
        left @ right
        ended.record()
        ended.synchronize()
        seconds.append(started.elapsed_time(ended) / 1e3)
    return float(2 * size**3 / min(seconds))


def main() -> None:
    """Measure and print."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--gpu", action="store_true")
    setting = GPU if asked.parse_args().gpu else CPU
    if setting is GPU and not torch.cuda.is_available():
        raise SystemExit("--gpu needs a CUDA device, and torch sees none")
    where = torch.cuda.get_device_name() if setting is GPU else f"CPU, {torch.get_num_threads()} threads"
    *_, height, width = setting.images
    sizes = f"images {height}x{width}, {setting.videos[2]} frames of {setting.videos[3]}x{setting.videos[4]} a video"
    table = Table(
        title=f"PickScore on {where}, {setting.dtype}, batches of {setting.batch_size}; {sizes}; "
        f"median of {setting.rounds} interleaved rounds"
    )
    for column in ("what", "scored", "tokens", "images a second", "ratio to the peer", "largest difference"):
        table.add_column(column, justify="left" if column in ("what", "scored") else "right")
    with tempfile.TemporaryDirectory() as folder:
        rate = measured(checkpoint(Path(folder), setting), setting, table)
    console = Console(width=120)
    console.print(table)
    if setting is GPU:
        most, each = peak(setting), operations(setting.config)
        share = rate * each / most
        console.print(f"{each / 1e9:.0f} GFLOP an image; {share:.0%} of {most / 1e12:.0f} TFLOP/s, a matrix product's")


if __name__ == "__main__":
    main()
