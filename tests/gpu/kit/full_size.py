"""A checkpoint of published size, drawn by everyone in turns."""

import time

from .cases import GRAPHS, Case, open_contender, settings_of
from .compiled import Compiling
from .prepare import bundle_at, wait_for
from .profile import profile_image
from .race import Race
from .record import Record
from .rounding import compare_rounding
from .setting import Setting

__all__ = ["run_case"]

_AFTERWARDS = 60.0
"""Seconds that are left to what comes after those that compile."""
_LAST = 20.0
"""Seconds without which no race with those that compile is begun."""


def run_case(setting: Setting, record: Record, case: Case) -> None:
    """Measure those first that need no compiling, then each that is compiled as it gets ready, then the rest."""
    wait_for(bundle_at(setting, case.kind), setting, case.kind, record)
    settings = settings_of(setting, case)
    what = f"{case.kind} {settings['height']}x{settings['width']}, {settings['num_inference_steps']} steps"
    race, compiling = Race(record, what, setting.device), Compiling(setting, case.kind)
    try:
        with compiling.stopped():
            for name in ("diffusers", *GRAPHS):
                race.enter(name, lambda name=name: open_contender(setting, case, name))  # type: ignore[misc]
            ready = _enter_those_that_are_done(race, compiling, record)
            race.run(["diffusers", *GRAPHS, *ready], rounds=case.rounds)
            if {"diffusers", "sdengine-step"} <= race.open.keys() and record.left > _AFTERWARDS:
                half = race.open["diffusers"]
                if not setting.gpu:  # there diffusers races in float32
                    half = open_contender(setting, case, "diffusers", dtype="bfloat16")
                compare_rounding(setting, record, case, race.open["sdengine-step"], half)
        _race_with_compiled(race, compiling, record, case, until=_AFTERWARDS)
        with compiling.stopped():
            for batch in case.batches:
                if batch != 1 and record.left > 40:
                    race.run(["diffusers", "sdengine-step"], rounds=2, batch=batch)
            if setting.gpu and record.left > 15:
                with record.check(f"{case.kind}: where the time of an image goes"):
                    profile_image(record, open_contender(setting, case, "sdengine-off"), case.kind)
        _race_with_compiled(race, compiling, record, case, until=_LAST)
        for name in compiling.names:
            record.skipped(
                name,
                f"{compiling.state(name)['state']} when time was up, of which it was stopped for "
                f"{compiling.stopped_s:.0f} s; a run with the same --work and --sections {case.kind} continues",
            )
    finally:
        race.close()


def _enter_those_that_are_done(race: Race, compiling: Compiling, record: Record) -> list[str]:
    """Let those that have got ready draw their first image for us; return their names."""
    entered = []
    for name in compiling.done():
        compiling.names.remove(name)
        figures = compiling.state(name).get("figures", {})
        if race.enter(name, lambda name=name: compiling.contender(name)):  # type: ignore[misc]
            record.figure("a contender is compiled", contender=name, stopped_s=round(compiling.stopped_s, 1), **figures)
            entered.append(name)
    return entered


def _race_with_compiled(race: Race, compiling: Compiling, record: Record, case: Case, *, until: float) -> None:
    """Race with those that compile as each gets ready, until so many seconds are left."""
    while compiling.names and record.left > until:
        if not compiling.done():
            time.sleep(0.5)
            continue
        with compiling.stopped():
            if ready := _enter_those_that_are_done(race, compiling, record):
                race.run(["diffusers", *ready, *GRAPHS[1:]], rounds=case.rounds, keep=until / 2)
