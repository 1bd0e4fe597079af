"""Files of the Hugging Face hub, and of plain addresses, brought to this machine."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from flux_rewards.errors import ConfigError, FluxRewardsError, RemoteError, WeightsError

__all__ = ["commit_of", "fetch_address", "fetch_file", "fetch_folder", "holds"]

_TEXTS = ("*.json", "*.txt", "*.model", "*.jinja")
# Each is one file, or shards with an index that names them; the first that a repository offers is read.
_FORMATS = (
    ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model-*-of-*.bin", "pytorch_model.bin.index.json"),
    ("open_clip_model.safetensors", "", ""),
    ("open_clip_pytorch_model.bin", "", ""),
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SECRET = re.compile(r"\bhf_\w{8,}|(?<=://)[^/@\s]+@|(?<=\w)\?\S+")  # tokens, passwords, signatures of addresses
_NETWORK = {"httpx2", "httpx", "httpcore2", "httpcore", "requests", "urllib3"}  # of the hub's client, over time
_AHEAD = "fetch it where there is a network with `flux-rewards download`, or pass the path of a local copy"
_PATIENCE = 30  # seconds without a byte

# A branch may move while a process runs: what it meant first holds, for all files and identities.
_commits: dict[tuple[str, str | None], str] = {}


def commit_of(source: str, revision: str | None) -> str | None:
    """The commit that a revision means in this process; None where nothing of it has been fetched yet."""
    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    return _commits.get((source, revision))


def fetch_file(source: str, file: str, revision: str | None, *, local_only: bool = False) -> Path:
    """One file of a repository.

    Raises:
        WeightsError: It cannot be had; says what to do.
        RemoteError: The hub answered with an error, or broke off.
        ConfigError: The source is no hub id.
    """
    import huggingface_hub as hub  # noqa: PLC0415  # takes a second

    with _explained(source, file, revision):
        found = hub.hf_hub_download(
            source, file, revision=commit_of(source, revision) or revision, local_files_only=local_only
        )
    assert isinstance(found, str)  # noqa: S101  # not a dry run
    _commits.setdefault((source, revision), Path(found).parents[file.count("/")].name)
    return Path(found)


def fetch_folder(
    source: str, revision: str | None, weights: bool | Collection[str], *, local_only: bool = False
) -> Path:
    """A directory with a repository's configuration and tokenizer and, where wanted, its weights in one format.

    Args:
        source: The hub id.
        revision: Branch, tag or commit.
        weights: Whether weights are wanted; or names of files, of which the first that is there is.
        local_only: Don't fetch.

    Raises:
        WeightsError: It cannot be had; says what to do.
        RemoteError: The hub answered with an error, or broke off.
        ConfigError: The source is no hub id.
    """
    import huggingface_hub as hub  # noqa: PLC0415  # takes a second

    at = commit_of(source, revision)
    with _explained(source, None, revision):
        offline = local_only or hub.constants.HF_HUB_OFFLINE
        folder = _held(source, at or revision, weights) if offline or at else None
        if folder is None and offline:
            raise WeightsError(f"{source} is not on this machine, or not all of it, and nothing is fetched; {_AHEAD}")
        if folder is None:
            try:
                folder = _snapshot(source, at or revision, weights)
            except (hub.errors.RevisionNotFoundError, WeightsError):
                raise
            except Exception:  # the hub is away, or refuses: what is here already serves
                folder = _held(source, at or revision, weights)
                if folder is None:
                    raise
    _commits.setdefault((source, revision), folder.name)
    return folder


def holds(source: str, file: str, revision: str | None) -> bool:
    """Whether a repository has a file, which is fetched then. Without a network, what has been fetched counts.

    Raises:
        WeightsError: It cannot be found out; says what to do.
        RemoteError: The hub answered with an error.
        ConfigError: The source is no hub id.
    """
    import huggingface_hub as hub  # noqa: PLC0415  # takes a second

    at = commit_of(source, revision) or revision
    if hub.try_to_load_from_cache(source, file, revision=at) is hub._CACHED_NO_EXIST and commit_of(source, revision):  # noqa: SLF001  # documented
        return False
    try:
        fetch_file(source, file, revision)
    except WeightsError as error:
        cause = error.__cause__
        if isinstance(cause, hub.errors.LocalEntryNotFoundError):
            if hub.try_to_load_from_cache(source, file, revision=at) is hub._CACHED_NO_EXIST:  # noqa: SLF001
                return False
            if _held(source, at, weights=False) is not None:
                return False
        elif isinstance(cause, hub.errors.EntryNotFoundError):
            return False
        raise
    return True


def fetch_address(address: str, *, local_only: bool = False) -> Path:
    """A file that is on no hub, kept beside what the hub's own client keeps; whole or not at all.

    Raises:
        WeightsError: It cannot be had; says what to do.
        RemoteError: The server answered with an error, or broke off.
    """
    import huggingface_hub as hub  # noqa: PLC0415  # takes a second
    import requests  # type: ignore[import-untyped]  # noqa: PLC0415

    name = unquote(urlsplit(address).path.rpartition("/")[2]) or "file"
    kept = Path(hub.constants.HF_HOME, "flux_rewards", hashlib.sha256(address.encode()).hexdigest()[:16], name)
    if kept.is_file():
        return kept
    what = _scrubbed(address)
    advice = f"fetch it where there is a network, and put it at {kept}, or pass the path of a local copy"
    if local_only or hub.constants.HF_HUB_OFFLINE:
        raise WeightsError(f"{what} is not on this machine, and nothing is fetched; {advice}")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with requests.get(
            address, stream=True, timeout=_PATIENCE, headers={"Accept-Encoding": "identity"}
        ) as response:
            response.raise_for_status()
            expected = int(response.headers.get("Content-Length") or 0)
            _write(kept, response.iter_content(1 << 20), 0 if response.headers.get("Content-Encoding") else expected)
    except requests.HTTPError as error:
        status = error.response.status_code
        if _is_passing(status):
            raise RemoteError(f"the server answered {status} for {what}; try again later", retryable=True) from error
        raise WeightsError(f"the server answered {status} for {what}; {advice}") from error
    except (requests.ConnectionError, requests.Timeout) as error:
        if isinstance(error, requests.ReadTimeout) or "IncompleteRead" in str(error):
            raise RemoteError(f"the download of {what} broke off; try again", retryable=True) from error
        raise WeightsError(f"{what} cannot be reached ({_line(error)}); {advice}") from error
    except requests.RequestException as error:
        raise RemoteError(f"the download of {what} broke off ({_line(error)}); try again", retryable=True) from error
    except OSError as error:
        raise WeightsError(f"{what} cannot be kept ({_line(error)}); {advice}") from error
    return kept


def _write(path: Path, chunks: Iterator[bytes], expected: int) -> None:
    from huggingface_hub.utils import tqdm  # noqa: PLC0415  # its switches, and its look

    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".incomplete", delete=False) as file:
        partial = Path(file.name)
        try:
            with tqdm(total=expected or None, unit="B", unit_scale=True, desc=path.name, disable=None) as bar:
                for chunk in chunks:
                    file.write(chunk)
                    bar.update(len(chunk))
            file.close()
            if expected and partial.stat().st_size != expected:
                raise RemoteError(
                    f"the download of {path.name} broke off at {partial.stat().st_size} of {expected} bytes; try again",
                    retryable=True,
                )
            partial.chmod(0o644)
            os.replace(partial, path)  # noqa: PTH105
        finally:
            partial.unlink(missing_ok=True)


def _snapshot(source: str, revision: str | None, weights: bool | Collection[str]) -> Path:
    import huggingface_hub as hub  # noqa: PLC0415

    wanted = list(_TEXTS)
    if weights:
        info = hub.HfApi().model_info(source, revision=revision, timeout=_PATIENCE)
        files = [sibling.rfilename for sibling in info.siblings or ()]
        chosen = _chosen(files, weights)
        if not chosen:
            held = ", ".join(sorted(files)[:12]) or "nothing"
            raise WeightsError(f"{source} holds no weights in a format that is known here; it holds {held}")
        wanted += chosen
    folder = hub.snapshot_download(source, revision=revision, allow_patterns=wanted)
    assert isinstance(folder, str)  # noqa: S101  # not a dry run
    return Path(folder)


def _held(source: str, revision: str | None, weights: bool | Collection[str]) -> Path | None:
    """The directory, where all that is wanted of it is on this machine."""
    import huggingface_hub as hub  # noqa: PLC0415

    try:
        found = hub.snapshot_download(source, revision=revision, allow_patterns=list(_TEXTS), local_files_only=True)
    except hub.errors.LocalEntryNotFoundError:
        return None
    assert isinstance(found, str)  # noqa: S101  # not a dry run
    folder = Path(found)
    if not weights:
        return folder
    chosen = _chosen([entry.name for entry in folder.iterdir()], weights)
    for whole, _, index in _FORMATS:
        if chosen and index and whole not in chosen and (folder / index).is_file():
            shards = set(json.loads((folder / index).read_text())["weight_map"].values())
            if Path(whole).suffix == Path(chosen[0]).suffix:
                return folder if shards <= set(chosen) else None
    return folder if chosen else None


def _chosen(files: Collection[str], weights: bool | Collection[str]) -> list[str]:
    """Of several formats, the files of one."""
    if not isinstance(weights, bool):
        return [file for file in weights if file in files][:1]
    for whole, shards, index in _FORMATS:
        if whole in files:
            return [whole]
        if index in files:
            return sorted(fnmatch.filter(files, shards))
    return []
