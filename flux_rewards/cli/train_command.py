"""The options of `flux-rewards train`. What it needs is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["train"]


def train(
    model: Annotated[str, typer.Argument(help="What to start from: a hub id or a directory.")],
    pairs: Annotated[
        Path,
        typer.Argument(
            metavar="PAIRS",
            help="A .jsonl, .json, .csv or .parquet file with chosen, rejected and, where they are known, prompt and "
            "margin.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where the trained model goes.")],
    *,
    eval_pairs: Annotated[
        Path | None,
        typer.Option(
            "--eval", metavar="PAIRS", help="Pairs to measure the accuracy with. By default some prompts are held out."
        ),
    ] = None,
    settings: Annotated[
        Path | None, typer.Option("--settings", metavar="FILE.yaml", help="Settings of the training.")
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting, such as learning_rate=1e-5 or lora.rank=16."),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="NAME=COLUMN",
            help="Which column holds chosen, rejected, prompt or margin; prompt= where there are no prompts.",
        ),
    ] = None,
    json_column: Annotated[
        list[str] | None, typer.Option("--json-column", metavar="COLUMN", help="A column of text that holds JSON.")
    ] = None,
    prompt_ends_with: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="How the prompt ends that both texts begin with, such as '\\n\\nAssistant:'."
        ),
    ] = None,
    aspect: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Train one model for each value of this, such as metadata.aspect."),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Hub id or directory of the tokenizer, where it is not the model's own.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the model on the hub.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was broken off.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Train a reward model on preferences, and measure it on pairs that it has not seen (extra: train)."""
    from flux_rewards.cli.app import _told_in_a_line  # noqa: PLC0415  # app imports this file
    from flux_rewards.cli.train import train_files  # noqa: PLC0415

    with _told_in_a_line(debug=debug):
        found = train_files(
            model,
            pairs,
            out,
            eval_pairs=eval_pairs,
            settings=settings,
            given=given or (),
            columns=column or (),
            json_columns=json_column or (),
            prompt_ends_with=prompt_ends_with,
            aspect=aspect,
            tokenizer=tokenizer,
            revision=revision,
            resume=resume,
        )
        for name, trained in found.items():
            if not trained.run.main:  # of several processes, one speaks
                continue
            if name:
                typer.echo(name)
            if trained.held_out is not None:
                typer.echo(f"{trained.held_out.report}\n")
            typer.echo(str(trained))
