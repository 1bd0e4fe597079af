"""Where weights are: a hub id or a path, resolved to local files."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flux_rewards.errors import ConfigError, WeightsError, brief
from flux_rewards.models.address import fetch_address
from flux_rewards.models.hub import commit_of, fetch_file, fetch_folder, holds

__all__ = ["Checkpoint"]

_PARTS = (".json", ".txt", ".model", ".jinja", ".safetensors", ".bin", ".pt", ".pth", ".onnx")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Checkpoint:
    """The files of a model, on the hub or on disk. Nothing is read or fetched before it is asked for.

    A branch of the hub means one commit for as long as the process runs: that of the first file asked for.

    Args:
        source: A hub id (``"openai/clip-vit-large-patch14"``), a local file or directory, or the https address of a
            file; what exists on disk wins.
        file: One file of it; None for all that transformers needs.
        revision: Branch, tag or commit on the hub; None for its main branch.
        weights: Without `file`, whether its weights are wanted, too, or only configuration and tokenizer; or the names
            of files, of which the first that is there holds the weights. Of several formats one is fetched.

    Raises:
        ConfigError: The source is not text, or empty.

    Does not read weights; see `flux_rewards.models.weights`.

    Examples:
        >>> Checkpoint("openai/clip-vit-large-patch14", "config.json").is_local
        False
    """

    source: str
    file: str | None = None
    revision: str | None = None
    weights: bool | tuple[str, ...] = True

    def __post_init__(self) -> None:
        given: Any = self.source
        if isinstance(given, os.PathLike):
            given = os.fspath(given)
            object.__setattr__(self, "source", given)
        if not isinstance(given, str) or not given.strip():
            raise ConfigError(
                "weights are named by a path or a hub id such as 'openai/clip-vit-large-patch14', found "
                f"{brief(self.source)}"
            )

    @property
    def is_local(self) -> bool:
        """Whether it is on disk, where the user put it."""
        return self._local is not None

    @property
    def label(self) -> str:
        """What messages call it."""
        at = f"@{self.revision}" if self.revision else ""
        return f"{self.source}{at}{'/' + self.file if self.file else ''}"

    def path(self, *, local_only: bool = False) -> Path:
        """The local file, or directory; fetched first where it is not there yet, with a progress bar.

        Args:
            local_only: Don't fetch.

        Raises:
            WeightsError: It is not there, the repository is gated, or there is no network; says what to do.
            RemoteError: The hub answered with an error, or broke off; trying again may help where it is `retryable`.
            ConfigError: The source is neither a path that exists nor a hub id.
        """
        local = self._local
        if local is not None:
            return self._within(local)
        if _is_address(self.source):
            return fetch_address(self.source, local_only=local_only)
        self._check_id()
        if self.file is not None:
            return fetch_file(self.source, self.file, self.revision, local_only=local_only)
        return fetch_folder(self.source, self.revision, self.weights, local_only=local_only)

    def identity(self) -> str:
        """What tells its content from another: the commit on the hub, or names, sizes and times of local files.

        Raises:
            WeightsError: As `path`.
            RemoteError: As `path`.
            ConfigError: As `path`.
        """
        if not self.is_local and not _is_address(self.source):
            if commit_of(self.source, self.revision) is None:
                self.path()
            return f"{self.source}@{commit_of(self.source, self.revision)}/{self.file or ''}"
        path = self.path()
        digest = hashlib.sha256()
        try:
            # What else lies in a directory, such as a log, decides nothing.
            files = [path] if path.is_file() else sorted(entry for entry in path.iterdir() if entry.suffix in _PARTS)
            for entry in files:
                facts = entry.stat()
                digest.update(f"{entry.name}\0{facts.st_size}\0{facts.st_mtime_ns}\0".encode())
        except OSError as error:
            raise WeightsError(f"{self.label} cannot be read: {error}") from error
        return f"{path.resolve()}#{digest.hexdigest()}"

    def part(self, file: str) -> Checkpoint:
        """One file of it."""
        return replace(self, file=file)

    def first_of(self, files: Sequence[str]) -> Checkpoint:
        """The first of some files that it holds.

        Raises:
            WeightsError: It holds none of them, or as `path`.
            RemoteError: As `path`.
            ConfigError: As `path`.
        """
        for file in files:
            if self.has(file):
                return self.part(file)
        raise WeightsError(f"{self.label} holds none of {', '.join(files)}")

    def has(self, file: str) -> bool:
        """Whether it holds a file, which is fetched then. Without a network, what has been fetched counts.

        Raises:
            WeightsError: It cannot be found out.
            RemoteError: As `path`.
            ConfigError: As `path`.
        """
        local = self._local
        if local is not None:
            return (local / file).is_file()
        if _is_address(self.source):
            return False
        self._check_id()
        return holds(self.source, file, self.revision)

    @property
    def _local(self) -> Path | None:
        """The path that it is, where there is one."""
        try:
            local = Path(self.source).expanduser()
            return local if local.exists() else None
        except (OSError, RuntimeError, ValueError):  # too long, no such user, null bytes
            return None

    def _within(self, local: Path) -> Path:
        if local.is_file() or self.file is None:
            return local
        if (local / self.file).is_file():
            return local / self.file
        try:
            held = sorted(entry.name for entry in local.iterdir())[:12]
        except OSError as error:
            raise WeightsError(f"{local} cannot be read: {error}") from error
        raise WeightsError(f"{local} holds no {self.file}; it holds {', '.join(held) or 'nothing'}")

    def _check_id(self) -> None:
        if not _HUB_ID.fullmatch(self.source):
            raise ConfigError(
                f"{self.source!r} is neither a path that exists nor a hub id such as 'openai/clip-vit-large-patch14'"
            )


def _is_address(source: str) -> bool:
    return source.startswith("https://")
