"""Files that are on no hub, by their address."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from flux_rewards.errors import RemoteError, WeightsError
from flux_rewards.models.hub_errors import is_passing, one_line, scrubbed

__all__ = ["fetch_address"]

_PATIENCE = 30  # seconds without a byte


def fetch_address(address: str, *, local_only: bool = False) -> Path:
    """A file that is on no hub, kept beside what the hub's own client keeps; whole or not at all.

    Raises:
        WeightsError: It cannot be had; says what to do.
        RemoteError: The server answered with an error, or broke off.
    """
    import requests  # noqa: PLC0415
    from huggingface_hub import constants  # noqa: PLC0415  # takes a second

    name = Path(unquote(urlsplit(address).path)).name or "file"
    kept = Path(constants.HF_HOME, "flux_rewards", hashlib.sha256(address.encode()).hexdigest()[:16], name)
    if kept.is_file():
        return kept
    what = scrubbed(address)
    advice = f"fetch it where there is a network, and put it at {kept}, or pass the path of a local copy"
    if local_only or constants.HF_HUB_OFFLINE:
        raise WeightsError(f"{what} is not on this machine, and nothing is fetched; {advice}")
    try:
        response = requests.get(address, stream=True, timeout=_PATIENCE, headers={"Accept-Encoding": "identity"})
    except requests.RequestException as error:
        raise WeightsError(f"{what} cannot be reached ({type(error).__name__}); {advice}") from error
    with response:
        status = response.status_code
        if is_passing(status):
            raise RemoteError(f"the server answered {status} for {what}; try again later", retryable=True)
        if not response.ok:
            raise WeightsError(f"the server answered {status} for {what}; {advice}")
        encoded = "Content-Encoding" in response.headers
        size = None if encoded else int(response.headers.get("Content-Length", 0)) or None
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            _write(kept, response.iter_content(1 << 20), size)
        except requests.RequestException as error:
            raise RemoteError(
                f"the download of {what} broke off ({one_line(error)}); try again", retryable=True
            ) from error
        except OSError as error:
            raise WeightsError(f"{what} cannot be kept ({one_line(error)}); {advice}") from error
    return kept


def _write(path: Path, chunks: Iterator[bytes], size: int | None) -> None:
    from huggingface_hub.utils.tqdm import tqdm  # noqa: PLC0415  # with the switches of the hub's own bars

    bars: Any = tqdm  # has no types
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".incomplete", delete=False) as file:
        partial = Path(file.name)
        try:
            with bars(total=size, unit="B", unit_scale=True, desc=path.name, disable=None) as bar:
                for chunk in chunks:
                    file.write(chunk)
                    bar.update(len(chunk))
            file.close()
            found = partial.stat().st_size
            if size is not None and found != size:
                raise RemoteError(
                    f"the download of {path.name} broke off at {found} of {size} bytes; try again", retryable=True
                )
            partial.chmod(0o644)
            os.replace(partial, path)  # noqa: PTH105
        finally:
            partial.unlink(missing_ok=True)
