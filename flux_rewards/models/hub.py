"""Files of the Hugging Face hub, brought to this machine."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Collection
from pathlib import Path

from flux_rewards.errors import WeightsError
from flux_rewards.models.hub_errors import AHEAD, explained

__all__ = ["commit_of", "fetch_file", "fetch_folder", "holds"]

_TEXTS = ("*.json", "*.txt", "*.model", "*.jinja")
# Each is one file, or shards with an index that names them; the first that a repository offers is read.
_FORMATS = (
    ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model-*-of-*.bin", "pytorch_model.bin.index.json"),
    ("open_clip_model.safetensors", "", ""),
    ("open_clip_pytorch_model.bin", "", ""),
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
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

    with explained(source, file, revision):
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
    from huggingface_hub import constants, errors  # noqa: PLC0415  # takes a second

    at = commit_of(source, revision) or revision
    with explained(source, None, revision):
        if local_only or constants.HF_HUB_OFFLINE:
            folder = _held(source, at, weights)
            if folder is None:
                raise WeightsError(
                    f"{source} is not on this machine, or not all of it, and nothing is fetched; {AHEAD}"
                )
        else:
            try:
                folder = _snapshot(source, at, weights)
            except (errors.RevisionNotFoundError, WeightsError):
                raise
            except Exception:
                folder = _held(source, at, weights)  # the hub is away, or refuses: what is here already serves
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
    from huggingface_hub import errors  # noqa: PLC0415

    at = commit_of(source, revision)
    with explained(source, file, revision):
        known = hub.try_to_load_from_cache(source, file, revision=at or revision)
    known_missing = known is hub._CACHED_NO_EXIST  # noqa: SLF001  # the documented way
    if at and known_missing:
        return False
    try:
        fetch_file(source, file, revision)
    except WeightsError as error:
        cause = error.__cause__
        if isinstance(cause, errors.LocalEntryNotFoundError):
            if known_missing or _held(source, at or revision, weights=False) is not None:
                return False
        elif isinstance(cause, errors.EntryNotFoundError):
            return False
        raise
    return True


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
    from huggingface_hub import errors  # noqa: PLC0415

    try:
        found = hub.snapshot_download(source, revision=revision, allow_patterns=list(_TEXTS), local_files_only=True)
    except errors.LocalEntryNotFoundError:
        return None
    assert isinstance(found, str)  # noqa: S101  # not a dry run
    folder = Path(found)
    if not weights:
        return folder
    chosen = _chosen([entry.name for entry in folder.iterdir()], weights)
    if chosen and chosen[0].endswith(".index.json"):
        shards = set(json.loads((folder / chosen[0]).read_text())["weight_map"].values())
        return folder if shards <= set(chosen) else None
    return folder if chosen else None


def _chosen(files: Collection[str], weights: bool | Collection[str]) -> list[str]:
    """Of several formats, the files of one; shards after their index."""
    if not isinstance(weights, bool):
        return [file for file in weights if file in files][:1]
    for whole, shards, index in _FORMATS:
        if whole in files:
            return [whole]
        if index in files:
            return [index, *sorted(fnmatch.filter(files, shards))]
    return []
