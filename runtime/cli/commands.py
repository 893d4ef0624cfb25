"""Assembles the commands.

The packages that only some commands need (``sdengine.export``, ``sdengine.benchmarks``) are imported inside them: a
process that generates images loads neither.
"""

from typing import Annotated

import typer

from .bench import bench
from .build import build
from .bundle_info import inspect
from .cache import cache
from .debug import debug
from .demo import demo
from .doctor import doctor
from .export import export
from .fetch import fetch
from .run import run
from .schedulers import schedulers
from .serve import serve

__all__ = ["app"]


def app() -> typer.Typer:
    """Return the command line: calling it runs the command that the process was started with."""
    commands = typer.Typer(
        name="sdengine",
        help="Compile Stable Diffusion checkpoints into engines, and generate images with them.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @commands.callback()
    def options(
        version: Annotated[
            bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_version)
        ] = False,
    ) -> None:
        pass

    for command in (demo, export, build, run, serve, bench, inspect, cache, schedulers, debug, doctor):
        commands.command()(command)
    commands.command(hidden=True)(fetch)
    return commands


def _version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        typer.echo(version("sdengine"))
        raise typer.Exit
