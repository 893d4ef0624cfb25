"""Work that needs torch or the network's libraries, done by the command line in a process of its own."""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Sequence

from ...engines.errors import ExportError, SdengineError, UsageError

__all__ = ["run_command"]

_ERROR = "error: "


def run_command(arguments: Sequence[str], *, say: Callable[[str], None], held: Sequence[int] = ()) -> str:
    """Run ``sdengine`` with these arguments; return what it printed to its standard output.

    Args:
        arguments: of the command line.
        say: called with each line that it prints to its standard error.
        held: descriptors of locks, which the child holds too: they are locked until it has ended, even if this
            process is killed.

    Raises:
        UsageError: it was asked for what cannot be met; the text is its own.
        ExportError: it failed; the text is its own.

    """
    command = [sys.executable, "-m", __package__.rpartition(".")[0], *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, pass_fds=held
    ) as child:
        assert child.stdout is not None and child.stderr is not None
        last: list[str] = []
        try:
            for line in child.stderr:
                if line.startswith(_ERROR) or last:
                    last.append(line)
                else:
                    say(line.rstrip())
            printed = child.stdout.read()
            status = child.wait()
        except BaseException:  # Ctrl-C, for instance: the child takes back what it has begun
            with contextlib.suppress(OSError):
                child.terminate()
            raise
    if status:
        text = "".join(last).strip().removeprefix(_ERROR) or f"it ended with status {status}"
        kind: type[SdengineError] = UsageError if status == UsageError.exit_status else ExportError
        raise kind(text)
    return printed
