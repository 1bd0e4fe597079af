"""Where weights are: a hub id or a path, resolved to local files."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from flux_rewards.errors import ConfigError, RemoteError, WeightsError

__all__ = ["Checkpoint"]

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TEXTS = ["*.json", "*.txt", "*.model", "*.jinja"]


@dataclass(frozen=True)
class Checkpoint:
    """The files of a model, on the hub or on disk. Nothing is read or fetched before it is asked for.

    Args:
        source: A hub id (``"openai/clip-vit-large-patch14"``), a local file or directory, or the https address of a
            file; what exists on disk wins.
        file: One file of it; None for all that transformers needs.
        revision: Branch, tag or commit on the hub; None for its main branch.
        weights: Without `file`, whether its weights are wanted, too, or only configuration and tokenizer.

    Raises:
        ConfigError: The source is neither a path that exists nor a hub id.

    Does not read weights; see `flux_rewards.models.weights`.

    Examples:
        >>> Checkpoint("openai/clip-vit-large-patch14", "config.json").is_local
        False
    """

    source: str
    file: str | None = None
    revision: str | None = None
    weights: bool = True

    @property
    def is_local(self) -> bool:
        """Whether it is on disk, where the user put it."""
        return Path(self.source).expanduser().exists()

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
        """
        local = Path(self.source).expanduser()
        if local.exists():
            if local.is_file() or self.file is None:
                return local
            if (local / self.file).is_file():
                return local / self.file
            held = sorted(entry.name for entry in local.iterdir())[:12]
            raise WeightsError(f"{local} holds no {self.file}; it holds {', '.join(held) or 'nothing'}")
        if _is_address(self.source):
            return _from_address(self.source, local_only=local_only)
        if not _HUB_ID.fullmatch(self.source):
            raise ConfigError(
                f"{self.source!r} is neither a path that exists nor a hub id such as 'openai/clip-vit-large-patch14'"
            )
        return self._fetched(local_only=local_only)

    def identity(self) -> str:
        """What tells its content from another: the commit on the hub, or names, sizes and times of local files.

        Raises:
            WeightsError: It cannot be found.
        """
        if not self.is_local and self.revision and _COMMIT.fullmatch(self.revision):
            return f"{self.source}@{self.revision}/{self.file or ''}"
        path = self.path()
        if not self.is_local and not _is_address(self.source):  # .../snapshots/<commit>/...
            parts = path.parts
            commit = parts[parts.index("snapshots") + 1]
            return f"{self.source}@{commit}/{self.file or ''}"
        files = [path] if path.is_file() else sorted(entry for entry in path.rglob("*") if entry.is_file())
        digest = hashlib.sha256()
        for entry in files:
            facts = entry.stat()
            name = entry.name if path.is_file() else entry.relative_to(path).as_posix()
            digest.update(f"{name}\0{facts.st_size}\0{facts.st_mtime_ns}\0".encode())
        return f"{path.resolve()}#{digest.hexdigest()}"

    def part(self, file: str) -> Checkpoint:
        """One file of it."""
        return replace(self, file=file)

    def model_type(self) -> str:
        """The kind of model, as transformers' ``config.json`` says it.

        Raises:
            WeightsError: There is no such file, or it does not say.
        """
        file = self.part("config.json").path()
        try:
            return str(json.loads(file.read_text())["model_type"])
        except (ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"{file} does not say what model_type it is: {error}") from error

    def first_of(self, files: Sequence[str]) -> Checkpoint:
        """The first of some files that it holds.

        Raises:
            WeightsError: It holds none of them.
        """
        for file in files:
            if self.has(file):
                return self.part(file)
        raise WeightsError(f"{self.label} holds none of {', '.join(files)}")

    def has(self, file: str) -> bool:
        """Whether it holds a file; asks the hub where that is not known yet.

        Raises:
            WeightsError: It cannot be found out.
        """
        local = Path(self.source).expanduser()
        if local.exists():
            return (local / file).is_file()
        from huggingface_hub.errors import EntryNotFoundError  # noqa: PLC0415  # takes a second

        try:
            Checkpoint(self.source, file, self.revision).path()
        except WeightsError as error:
            if isinstance(error.__cause__, EntryNotFoundError) and not _is_offline(error.__cause__):
                return False
            raise
        return True

    def _fetched(self, *, local_only: bool) -> Path:
        import huggingface_hub as hub  # noqa: PLC0415  # takes a second

        with _explained(self):
            if self.file is not None:
                found = hub.hf_hub_download(self.source, self.file, revision=self.revision, local_files_only=local_only)
                assert isinstance(found, str)  # noqa: S101  # not a dry run
                return Path(found)
            wanted = _TEXTS if not self.weights else [*_TEXTS, self._weights_pattern(local_only=local_only)]
            snapshot = hub.snapshot_download(
                self.source, revision=self.revision, allow_patterns=wanted, local_files_only=local_only
            )
            assert isinstance(snapshot, str)  # noqa: S101  # not a dry run
            return Path(snapshot)

    def _weights_pattern(self, *, local_only: bool) -> str:
        """Only one of the formats that a repository offers: safetensors where it is among them."""
        import huggingface_hub as hub  # noqa: PLC0415

        if local_only or hub.constants.HF_HUB_OFFLINE:
            return "*"
        files = [file for file in hub.HfApi().list_repo_files(self.source, revision=self.revision) if "/" not in file]
        for pattern in ("model*.safetensors", "pytorch_model*.bin", "*.safetensors", "*.bin"):
            if fnmatch.filter(files, pattern):
                return pattern
        return "*"


def _is_address(source: str) -> bool:
    return source.startswith("https://")


def _from_address(address: str, *, local_only: bool) -> Path:
    """A file that is on no hub, kept beside what the hub's own client keeps."""
    import huggingface_hub as hub  # noqa: PLC0415  # takes a second
    import torch  # noqa: PLC0415

    name = unquote(address.rpartition("/")[2])
    kept = Path(hub.constants.HF_HOME, "flux_rewards", hashlib.sha256(address.encode()).hexdigest()[:16], name)
    if kept.is_file():
        return kept
    advice = f"fetch it where there is a network, and put it at {kept}, or pass the path of a local copy"
    if local_only or hub.constants.HF_HUB_OFFLINE:
        raise WeightsError(f"{address} is not on this machine, and nothing is fetched (HF_HUB_OFFLINE); {advice}")
    kept.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(address, str(kept))  # a progress bar; whole or not at all
    except OSError as error:
        raise WeightsError(f"{address} cannot be fetched ({type(error).__name__}: {error}); {advice}") from error
    return kept


def _is_offline(error: BaseException) -> bool:
    from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: PLC0415

    return isinstance(error, LocalEntryNotFoundError)


@contextmanager
def _explained(checkpoint: Checkpoint) -> Iterator[None]:
    """What went wrong on the way to the hub, and what to do."""
    from huggingface_hub import errors  # noqa: PLC0415

    what, page = checkpoint.label, f"https://huggingface.co/{checkpoint.source}"
    ahead = "fetch it where there is a network with `flux-rewards download`, or pass the path of a local copy"
    try:
        yield
    except errors.GatedRepoError as error:
        raise WeightsError(
            f"{what} is gated: accept its terms on {page}, then run `hf auth login` or set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsError(
            f"{what} is not on the hub, or is private: check the name, or run `hf auth login` or set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise WeightsError(f"{checkpoint.source} has no revision {checkpoint.revision!r}; see {page}/tree") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise WeightsError(f"{what} is not on this machine, and the hub cannot be reached; {ahead}") from error
    except errors.EntryNotFoundError as error:
        raise WeightsError(f"{checkpoint.source} has no file {checkpoint.file!r}; see {page}/tree") from error
    except errors.HFValidationError as error:
        raise ConfigError(f"{checkpoint.source!r} is no hub id, and no path that exists: {error}") from error
    except errors.HfHubHTTPError as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        passing = status is None or status == 429 or status >= 500
        raise RemoteError(f"the hub answered {status} for {what}: {error}", retryable=passing) from error
    except OSError as error:
        raise WeightsError(f"{what} cannot be fetched ({type(error).__name__}: {error}); {ahead}") from error
