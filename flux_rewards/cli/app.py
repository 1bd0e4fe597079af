"""The commands and their options. What they need is imported when one runs, so that ``--help`` is quick."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from flux_rewards import __version__
from flux_rewards.cli import INTERRUPTED
from flux_rewards.cli.train_command import train
from flux_rewards.errors import FluxRewardsError

__all__ = ["app"]

# Tracebacks of Typer's own making show local variables, and those may be credentials.
app = typer.Typer(
    name="flux-rewards",
    help="Score a file of samples with composable rewards, and look rewards up.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

cache_app = typer.Typer(help="Look at a file of cached scores, or empty it.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@contextlib.contextmanager
def _told_in_a_line(*, debug: bool) -> Iterator[None]:
    """What goes wrong for a reason that the message explains ends in one line and exit code 1."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        raise  # nobody reads any more: Typer ends quietly
    except (FluxRewardsError, OSError) as error:
        if debug:
            raise
        typer.echo(f"error: {_text(error)}", err=True)
        raise typer.Exit(1) from None


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, FluxRewardsError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error) or type(error).__name__


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def score(
    rewards: Annotated[Path, typer.Argument(metavar="REWARDS.yaml", help="Configuration of the rewards.")],
    samples: Annotated[
        Path,
        typer.Argument(
            metavar="SAMPLES",
            help="A .jsonl, .json, .csv or .parquet file. Fields of a sample by name; all else is metadata. "
            "Paths of media are relative to the file's folder.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="OUT", help="Where the rows go: .jsonl, .json, .csv or .parquet."),
    ],
    *,
    use_eval: Annotated[bool, typer.Option("--eval", help="Score with the section eval_rewards.")] = False,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Samples scored at once, about: a group is never split.")
    ] = 256,
    max_failure_rate: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Go on, without a reward for a sample that fails, until more than this share of a batch has failed. "
            "At 0 the first failure ends it.",
        ),
    ] = 0.0,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            metavar="FILE",
            help="Keep the scores in this file, and take from it those that are known: a run that was broken off goes "
            "on where it stopped. Made where it is missing.",
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Score a file of samples; write one row a sample, and print the statistics of each reward."""
    with _told_in_a_line(debug=debug):
        from flux_rewards.cli.progress import TerminalProgress  # noqa: PLC0415
        from flux_rewards.cli.score import score_file  # noqa: PLC0415
        from flux_rewards.cli.tables import output_console, summary_table  # noqa: PLC0415

        with TerminalProgress() as progress:
            scored = score_file(
                rewards,
                samples,
                out,
                use_eval=use_eval,
                batch_size=batch_size,
                max_failure_rate=max_failure_rate,
                cache=cache,
                progress=progress,
            )
        console = output_console()
        console.print(summary_table(scored))
        console.print(f"{scored.summary.total.count} rows written to {out}", soft_wrap=True)
        if cache is not None:
            console.print(f"{scored.known} scores were known from {cache}", soft_wrap=True)


@app.command()
def evaluate(
    rewards: Annotated[Path, typer.Argument(metavar="REWARDS.yaml", help="Configuration of the rewards.")],
    pairs: Annotated[
        Path,
        typer.Argument(
            metavar="PAIRS",
            help="A .jsonl, .json, .csv or .parquet file with chosen, rejected and, where it is known, prompt.",
        ),
    ],
    *,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="OUT.json", help="Write the report as JSON too.")
    ] = None,
    by: Annotated[
        str | None, typer.Option("--by", metavar="KEY", help="Report subsets by this column, such as metadata.subset.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="NAME=COLUMN", help="Which column holds chosen, rejected, prompt or margin."),
    ] = None,
    json_column: Annotated[
        list[str] | None, typer.Option("--json-column", metavar="COLUMN", help="A column of text that holds JSON.")
    ] = None,
    prompt_ends_with: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="How the prompt ends that both texts begin with, such as 'Assistant:'."),
    ] = None,
    use_eval: Annotated[bool, typer.Option("--eval", help="Evaluate the section eval_rewards.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Answers scored at once, about.")] = 256,
    max_failure_rate: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Leave pairs that fail out, and say so, until more than this share of a batch has failed. At 0 the "
            "first failure ends it.",
        ),
    ] = 0.0,
    resamples: Annotated[int, typer.Option(min=0, help="Bootstrap samples for the intervals; 0 for none.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the resampling, and of the order of answers within a group.")] = 0,
    cache: Annotated[
        Path | None,
        typer.Option("--cache", metavar="FILE", help="Keep the scores in this file; see score."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Tell how well rewards agree with preferences: accuracy with intervals, calibration, bias of length."""
    with _told_in_a_line(debug=debug):
        from flux_rewards.cli.evaluate import evaluate_file  # noqa: PLC0415
        from flux_rewards.cli.progress import TerminalProgress  # noqa: PLC0415

        with TerminalProgress() as progress:
            report = evaluate_file(
                rewards,
                pairs,
                out=out,
                columns=column or (),
                json_columns=json_column or (),
                prompt_ends_with=prompt_ends_with,
                use_eval=use_eval,
                cache=cache,
                progress=progress,
                by=by,
                batch_size=batch_size,
                max_failure_rate=max_failure_rate,
                resamples=resamples,
                seed=seed,
            )
        typer.echo(str(report))


app.command()(train)


@app.command("list")
def list_(*, debug: Debug = False) -> None:
    """List every registered reward: what it reads, its scope, its bounds and what it scores."""
    with _told_in_a_line(debug=debug):
        from flux_rewards.cli.catalogue import catalogue_table  # noqa: PLC0415
        from flux_rewards.cli.tables import output_console  # noqa: PLC0415

        output_console().print(catalogue_table())


@app.command()
def info(
    name: Annotated[str, typer.Argument(help="A registered name, or the dotted path of a reward of your own.")],
    *,
    debug: Debug = False,
) -> None:
    """Tell all about one reward: parameters, attributes, documentation, and a configuration that works."""
    with _told_in_a_line(debug=debug):
        from flux_rewards.cli.catalogue import description  # noqa: PLC0415
        from flux_rewards.cli.tables import output_console  # noqa: PLC0415

        console = output_console()
        for block in description(name):
            console.print(block, soft_wrap=isinstance(block, str))


@app.command()
def download(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Registered rewards, with their default parameters: PickScore HPSv2."),
    ] = None,
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", metavar="REWARDS.yaml", help="Fetch for all rewards of a configuration, as it has them."
        ),
    ] = None,
    only_list: Annotated[
        bool, typer.Option("--list", help="Fetch nothing: tell what is on this machine, and what is missing.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Fetch the weights of rewards ahead of time, and tell where they lie. Exit code 1 where some could not be had."""
    if not names and config is None:
        raise typer.BadParameter("name a reward, or give a configuration with --config")
    with _told_in_a_line(debug=debug):
        from flux_rewards.cli.download import fetch_all, size_text  # noqa: PLC0415

        reward, failed = None, False
        for need in fetch_all(names or [], config, local_only=only_list):
            if need.error is not None:
                if debug:
                    raise need.error
                told = _text(need.error)
                who = "" if told.startswith(need.reward) else f"{need.reward}: "
                typer.echo(f"error: {who}{told}", err=True)
                failed = True
                continue
            if need.checkpoint is None:
                typer.echo(f"{need.reward}: needs no files")
                continue
            if reward != need.reward:
                typer.echo(need.reward)
                reward = need.reward
            found = "missing" if need.path is None else f"{size_text(need.size)}  {need.path}"
            typer.echo(f"  {need.checkpoint}  {found}")
        if failed:
            raise typer.Exit(1)


@app.command()
def verify(
    name: Annotated[str, typer.Argument(help="A registered reward that has published scores, such as PickScore.")],
    *,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="KEY=VALUE", help="A parameter of the reward; may be given several times."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Score images that ship with the package, and compare with published scores and the original code.

    Fetches the weights where they are not on this machine. Exit code 1 where ours differ by more than the tolerance,
    2 where there was nothing to compare with.
    """
    with _told_in_a_line(debug=debug):
        from flux_rewards.cli.tables import output_console  # noqa: PLC0415
        from flux_rewards.cli.verify import comparison_table, parse_parameters  # noqa: PLC0415
        from flux_rewards.verification import verify as compare  # noqa: PLC0415

        console = output_console()
        comparisons = compare(name, **parse_parameters(param or []))
        for comparison in comparisons:
            console.print(comparison.source, style="bold", soft_wrap=True)
            if comparison.agrees is None:
                console.print(f"not compared: {comparison.reason}\n", soft_wrap=True)
                continue
            console.print(comparison_table(comparison))
            verdict = "agrees" if comparison.agrees else "DIFFERS"
            console.print(f"{verdict} (tolerance {comparison.tolerance:.2g})\n")
        verdicts = {comparison.agrees for comparison in comparisons}
        if False in verdicts or True not in verdicts:
            raise typer.Exit(1 if False in verdicts else 2)


CacheFile = Annotated[Path, typer.Argument(metavar="FILE", help="A file that score --cache, or Cached, has made.")]


@cache_app.command()
def stats(path: CacheFile, *, debug: Debug = False) -> None:
    """Tell how many scores a cache holds, and its size."""
    with _told_in_a_line(debug=debug):
        from flux_rewards.cli.cache import cache_table  # noqa: PLC0415
        from flux_rewards.cli.tables import output_console  # noqa: PLC0415

        output_console().print(cache_table(path))


@cache_app.command()
def clear(path: CacheFile, *, debug: Debug = False) -> None:
    """Forget every score of a cache; the file stays."""
    with _told_in_a_line(debug=debug):
        from flux_rewards.cli.cache import clear_cache  # noqa: PLC0415

        typer.echo(f"{clear_cache(path)} scores removed from {path}")


@app.command()
def serve(
    rewards: Annotated[Path, typer.Argument(metavar="REWARDS.yaml", help="Configuration of the rewards.")],
    *,
    host: Annotated[str, typer.Option(help="Where to listen. Any other than loopback needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Where to listen; 0 for a free port.")] = 8000,
    token_env: Annotated[
        str, typer.Option(metavar="NAME", help="Environment variable with the token that clients must send.")
    ] = "FLUX_REWARDS_TOKEN",  # noqa: S107  # its name
    no_token: Annotated[bool, typer.Option("--no-token", help="Serve anybody who can reach the host.")] = False,
    evaluation: Annotated[bool, typer.Option("--eval", help="Serve the section eval_rewards.")] = False,
    max_batch: Annotated[int, typer.Option(help="Samples of several requests that are scored together.")] = 64,
    debug: Debug = False,
) -> None:
    """Serve rewards over HTTP, for trainers in another environment or on another machine (extra: server)."""
    from flux_rewards.cli.serve import server_of  # noqa: PLC0415  # loads rewards

    with _told_in_a_line(debug=debug):
        server = server_of(
            rewards,
            host=host,
            port=port,
            token_variable=token_env,
            no_token=no_token,
            evaluation=evaluation,
            max_batch=max_batch,
        )
        server.run()
