"""What goes wrong on the way to the hub, told with what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flux_rewards.errors import ConfigError, FluxRewardsError, RemoteError, WeightsError

__all__ = ["AHEAD", "explained", "is_passing", "one_line", "scrubbed"]

AHEAD = "fetch it where there is a network with `flux-rewards download`, or pass the path of a local copy"
_SECRET = re.compile(r"\bhf_\w{8,}|(?<=://)[^/@\s]+@|(?<=\w)\?\S+")  # tokens, passwords, signatures of addresses
_NETWORK = {"httpx2", "httpx", "httpcore2", "httpcore", "requests", "urllib3"}  # of the hub's client, over time


@contextmanager
def explained(source: str, file: str | None, revision: str | None) -> Iterator[None]:
    """What goes wrong within is raised as an error of the library, which says what to do."""
    try:
        yield
    except (FluxRewardsError, AttributeError, NameError, TypeError):
        raise  # told already, or a fault of the code
    except Exception as error:
        raise _told(error, source, file, revision) from error


def _told(error: Exception, source: str, file: str | None, revision: str | None) -> FluxRewardsError:
    from huggingface_hub import errors  # noqa: PLC0415  # loaded already

    what = f"{source}{f'@{revision}' if revision else ''}{f'/{file}' if file else ''}"
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, errors.HfHubHTTPError):
        error = error.__cause__  # the hub was there, and said no
    if isinstance(error, errors.HFValidationError):
        return ConfigError(f"{source!r} is neither a path that exists nor a hub id: {one_line(error)}")
    if isinstance(error, errors.LocalEntryNotFoundError):
        cause = error.__cause__  # none where the caller wants nothing to be fetched
        away = cause is not None and not isinstance(cause, errors.OfflineModeIsEnabled)
        why = f"the hub cannot be reached ({one_line(cause)})" if cause and away else "nothing is fetched"
        return WeightsError(f"{what} is not on this machine, and {why}; {AHEAD}")
    if isinstance(error, errors.HfHubHTTPError):
        return _refused(error, what, source, file, revision)
    network = type(error).__module__.partition(".")[0] in _NETWORK
    if isinstance(error, errors.OfflineModeIsEnabled) or (network and "Connect" in type(error).__name__):
        return WeightsError(
            f"{what} is not on this machine, and the hub cannot be reached ({one_line(error)}); {AHEAD}"
        )
    if network or (isinstance(error, OSError) and error.errno is None):  # so the client tells a file that is too short
        return RemoteError(f"the download of {what} broke off ({one_line(error)}); try again", retryable=True)
    return WeightsError(f"{what} cannot be fetched ({one_line(error)}); {AHEAD}")


def _refused(error: Any, what: str, source: str, file: str | None, revision: str | None) -> FluxRewardsError:
    from huggingface_hub import constants, errors  # noqa: PLC0415

    page = scrubbed(f"{constants.ENDPOINT}/{source}")
    if isinstance(error, errors.GatedRepoError):
        return WeightsError(
            f"{what} is gated: accept its terms on {page}, then run `hf auth login` or set HF_TOKEN, and check that "
            "the token may read gated repositories"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return WeightsError(
            f"{what} is not on the hub, or is private, and is no path that exists: check the name, or run `hf auth "
            "login` or set HF_TOKEN"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return WeightsError(f"{source} has no revision {revision!r}; its branches are on {page}/tree/main")
    if isinstance(error, errors.EntryNotFoundError):
        return WeightsError(f"{source} has no file {file!r}; its files are on {page}/tree/{revision or 'main'}")
    return _answered(error, what)


def _answered(error: Any, what: str) -> FluxRewardsError:
    """An error that the hub answered with; its text would hold signed addresses."""
    status, said = error.response.status_code, error.server_message
    reason = f": {scrubbed(said)}" if said else ""
    if status in (401, 403):
        return WeightsError(
            f"the hub refuses {what} ({status}{reason}): run `hf auth login`, or correct or unset HF_TOKEN"
        )
    wait = error.response.headers.get("Retry-After", "")
    return RemoteError(
        f"the hub answered {status} for {what}{reason}{'; try again later' if is_passing(status) else ''}",
        retryable=is_passing(status),
        retry_after=float(wait) if wait.isdigit() else None,
    )


def is_passing(status: int) -> bool:
    """Whether the same request may be answered later.

    Examples:
        >>> is_passing(429), is_passing(404)
        (True, False)
    """
    return status in (408, 429) or status >= 500


def one_line(error: BaseException) -> str:
    r"""An exception in a line, without credentials.

    Examples:
        >>> one_line(ValueError("wrong\nand more"))
        'ValueError: wrong'
    """
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {scrubbed(first)}" if first else type(error).__name__


def scrubbed(text: str) -> str:
    """A text for a message: without tokens, passwords and the queries of addresses, which sign them.

    Examples:
        >>> scrubbed("https://me:secret@mirror.org/file?Signature=abc refused hf_abcdefghijkl")
        'https://...mirror.org/file... refused ...'
    """
    return _SECRET.sub("...", text)
