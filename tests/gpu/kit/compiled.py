"""Contenders that torch.compile compiles for minutes: each in a process of its own, beside the sections.

``python -m tests.gpu.kit.compiled KIND NAME ...`` opens a contender, compiles it with its first image, and then draws
what a section asks for. A section stops those that still compile while it measures, so that neither disturbs the other.
What was compiled is in the work folder: a later run of the kit with the same work folder continues there.
"""

import argparse
import contextlib
import json
import os
import signal
import time
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

from .cases import CASES, COMPILED, Case, open_contender
from .contenders import Contender
from .prepare import bundle_at, checkpoint_at, wait_for
from .setting import Setting, add_arguments, end_with_parent, setting_from

__all__ = ["DONE", "PROMPT", "Compiling", "state_file"]

PROMPT = "a red fox in the snow, photographed at dawn"
DONE = ("ready", "failed")
"""States in which a contender compiles no more."""


def state_file(setting: Setting, kind: str, name: str) -> Path:
    """Return the file that says how far a contender is."""
    return setting.work / f"{kind}-{name}.json"


def _state(setting: Setting, kind: str, name: str) -> dict[str, Any]:
    with contextlib.suppress(OSError):
        found: dict[str, Any] = json.loads(state_file(setting, kind, name).read_text())
        return found
    return {"state": "not begun"}


class Compiling:
    """The contenders of a kind that compile beside a section.

    Args:
        setting: where.
        kind: of checkpoint.

    Attributes:
        names: those that are not in a race yet.
        stopped_s: seconds for which they were stopped.

    """

    def __init__(self, setting: Setting, kind: str) -> None:
        self._setting, self._kind = setting, kind
        self.names = [name for names in COMPILED for name in names] if setting.compile else []
        self.stopped_s = 0.0

    def state(self, name: str) -> dict[str, Any]:
        """Return ``state`` and, with that, ``pid``, ``address``, ``figures`` or ``error``."""
        return _state(self._setting, self._kind, name)

    def done(self) -> list[str]:
        """Return those of ``names`` that are ready or have failed."""
        return [name for name in self.names if self.state(name)["state"] in DONE]

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop those that compile in the block."""
        states = [self.state(name) for name in self.names]
        groups = [state["pid"] for state in states if "pid" in state and state["state"] not in DONE]
        started = time.monotonic()
        try:
            for group in groups:
                _signal(group, signal.SIGSTOP)
            yield
        finally:
            for group in groups:
                _signal(group, signal.SIGCONT)
            self.stopped_s += time.monotonic() - started

    def contender(self, name: str) -> Contender:
        """Return one that is ready; it draws in its process.

        Raises:
            RuntimeError: it could not be opened or compiled.

        """
        state = self.state(name)
        if state["state"] != "ready":
            raise RuntimeError(f"{name}: {state.get('error', state['state'])}")
        connection = Client(state["address"])

        def ask(what: str, *arguments: Any) -> Any:
            connection.send((what, *arguments))
            done, value = connection.recv()
            if not done:
                raise RuntimeError(f"{name}: {value}")
            return value

        return Contender(
            name=name,
            draw=lambda *arguments: ask("draw", *arguments),
            latents=lambda *arguments: ask("latents", *arguments),
            close=connection.close,
            opened=state["figures"]["open_s"],
        )


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _wait(setting: Setting, kind: str, name: str) -> None:
    """Wait for what a contender reads, and for those that are compiled before it."""
    wait_for((bundle_at if name.startswith("sdengine") else checkpoint_at)(setting, kind), setting, kind)
    for names in COMPILED:
        if name in names:
            return
        while any(_state(setting, kind, each)["state"] not in DONE for each in names):
            time.sleep(0.5)


def _compile_and_serve(setting: Setting, case: Case, name: str, file: Path) -> None:
    def say(state: str, **more: Any) -> None:
        aside = file.with_suffix(".partial")
        aside.write_text(json.dumps({"state": state, "pid": os.getpid(), **more}))
        aside.rename(file)
        print(time.strftime("%H:%M:%S"), name, state, more, flush=True)

    say("waiting")
    try:
        _wait(setting, case.kind, name)
        say("compiling")
        contender = open_contender(setting, case, name)
        times = [round(contender.draw(PROMPT, 0, 1).seconds, 2) for _ in range(3)]
        figures = {"open_s": round(contender.opened, 2), "first_images_s": times}
        listener = Listener(None, "AF_UNIX")
        say("ready", address=listener.address, figures=figures)
    except Exception as error:
        traceback.print_exc()
        said = (str(error).strip().splitlines() or [""])[0][:500]
        say("failed", error=f"{type(error).__name__}: {said}")
        return
    with listener:
        while True:
            with listener.accept() as connection, contextlib.suppress(EOFError, ConnectionError):
                _serve(contender, connection)


def _serve(contender: Contender, connection: "Connection[Any, Any]") -> None:
    while True:
        what, *arguments = connection.recv()
        try:
            answer = True, getattr(contender, what)(*arguments)
        except Exception as error:
            traceback.print_exc()
            answer = False, f"{type(error).__name__}: {error}"
        connection.send(answer)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=CASES)
    parser.add_argument("name")
    add_arguments(parser)
    options = parser.parse_args()
    end_with_parent()
    where = setting_from(options)
    _compile_and_serve(where, CASES[options.kind], options.name, state_file(where, options.kind, options.name))
