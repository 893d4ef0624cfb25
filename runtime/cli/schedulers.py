"""``sdengine schedulers``: the solvers that images can be generated with, and their options."""

from typing import Annotated

import typer

from .console import out, print_json, table

__all__ = ["schedulers"]


def schedulers(
    name: Annotated[str | None, typer.Argument(help="Show the options of this one, and their defaults.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the schedulers that --scheduler takes, by diffusers' names and by short ones."""
    from ..schedule.solver_registry import SOLVERS, find_solver

    if name is not None:
        solver, implied = find_solver(name)
        options = {**solver.options.defaults, **implied}
        if json:
            print_json({"scheduler": solver.name, "options": options})
            return
        shown = table(f"Options of {solver.name}", "option", "default", "other values")
        for option, default in options.items():
            choices = [str(choice) for choice in solver.options.choices.get(option, ()) if choice != default]
            shown.add_row(option, str(default), ", ".join(choices))
        out.print(shown)
        out.print("--scheduler-option NAME=VALUE sets one", style="dim", highlight=False)
        return
    if json:
        print_json({solver.name: {"short_names": list(solver.short_names)} for solver in SOLVERS.values()})
        return
    shown = table("Schedulers", "diffusers' name", "short names", "takes")
    for solver in SOLVERS.values():
        shown.add_row(solver.name, ", ".join(solver.short_names), ", ".join(sorted(solver.takes)))
    out.print(shown)
    out.print("`sdengine schedulers NAME` shows its options", style="dim", highlight=False)
