"""How much memory scoring many images takes, beside the weights: `PickScore`, and the usual loop.

    python tests/benchmarks/image_memory.py          # a CPU: ViT-B/32
    python tests/benchmarks/image_memory.py --gpu    # CUDA: ViT-H/14, in bfloat16

Images are files, so that they count only while somebody works with them. The peer is the scorer of `image.py` given all
images at once, as a scorer that leaves the batch size to its caller is: it opens, prepares and encodes them in one go.
Each number is from a process of its own, which scores a few images first; then its peak is set back. On a CPU it is
the growth of the resident memory (Linux only), on CUDA what torch has allocated at most beyond the weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from image import CPU, GPU, SHORT, Peer, Setting, checkpoint, pictures
from PIL import Image
from rich.console import Console
from rich.table import Table

from flux_rewards import PickScore, Sample

COUNTS = (16, 32, 64, 256, 1000)
FILES = 16  # each is scored again and again
ALL_AT_ONCE_UP_TO = 256  # beyond, the peer needs gigabytes
PEER, OURS = "all at once", "flux_rewards"


def image_files(folder: Path) -> list[Path]:
    """Smooth images of 512x512."""
    files = [folder / f"{number}.png" for number in range(FILES)]
    levels = (pictures(FILES, 3, 512, 512, device="cpu") * 255).byte().permute(0, 2, 3, 1).numpy()
    for file, image in zip(files, levels, strict=True):
        Image.fromarray(image).save(file)
    return files


def settle(setting: Setting) -> int:
    """Set the peak back; returns the bytes in use now."""
    if setting.device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def peak(setting: Setting) -> int:
    """The most bytes in use since."""
    return torch.cuda.max_memory_allocated() if setting.device == "cuda" else resident("VmHWM")


def resident(what: str) -> int:
    """One of the numbers that Linux keeps of a process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (found,) = (line.split()[1] for line in lines if line.startswith(f"{what}:"))
    return int(found) * 1024


def growth(who: str, count: int, folder: Path, setting: Setting) -> int:
    """Bytes beyond what is in use once a few images are scored: in a process of its own."""
    files = sorted(folder.glob("*.png"))
    prompts, images = [SHORT] * count, [files[number % FILES] for number in range(count)]
    if who == PEER:
        peer = Peer(folder, dataclasses.replace(setting, batch_size=count))

        def score(count: int) -> Any:
            return peer.pictures(prompts[:count], [Image.open(file) for file in images[:count]])
    else:
        options: Any = {"device": setting.device, "dtype": setting.dtype, "batch_size": setting.batch_size}
        reward = PickScore(str(folder), processor_name_or_path=str(folder), **options)

        def score(count: int) -> Any:
            return reward([Sample(prompts[row], image=images[row]) for row in range(count)])

    score(2)
    before = settle(setting)
    score(count)
    return peak(setting) - before


def main() -> None:
    """Measure and print."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--gpu", action="store_true")
    asked.add_argument("--one", nargs=3, metavar=("WHO", "COUNT", "FOLDER"), help="what a process of its own is given")
    options = asked.parse_args()
    setting = dataclasses.replace(GPU if options.gpu else CPU, batch_size=16)
    if options.gpu and not torch.cuda.is_available():
        raise SystemExit("--gpu needs a CUDA device, and torch sees none")
    if options.one:
        who, count, folder = options.one
        print(json.dumps(growth(who, int(count), Path(folder), setting)))
        return
    table = Table(
        title=f"memory beside the weights, {setting.device}, {setting.dtype}, batches of {setting.batch_size}"
    )
    for column in ("what", *(f"{count} images, MB" for count in COUNTS)):
        table.add_column(column, justify="left" if column == "what" else "right")
    with tempfile.TemporaryDirectory() as folder:
        image_files(checkpoint(Path(folder), setting))
        for who in (PEER, OURS):
            row = []
            for count in COUNTS:
                if who == PEER and count > ALL_AT_ONCE_UP_TO:
                    row.append("not run")
                    continue
                command = [
                    sys.executable,
                    __file__,
                    *(["--gpu"] if options.gpu else []),
                    "--one",
                    who,
                    str(count),
                    folder,
                ]
                found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                row.append(f"{json.loads(found.splitlines()[-1]) / 1e6:.0f}")
            table.add_row(who, *row)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
