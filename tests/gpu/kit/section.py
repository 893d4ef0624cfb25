"""A section's process: ``python -m tests.gpu.kit.section NAME --seconds S ...``."""

import argparse
import signal
import sys
import traceback
from importlib import import_module

from .record import Record, Skip
from .sections import SECTIONS
from .setting import add_arguments, end_with_parent, setting_from


def main() -> int:
    """Run one section; exit status 0 if all checks hold, 3 if it cannot be done here."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--seconds", type=float, required=True)
    add_arguments(parser)
    options = parser.parse_args()
    end_with_parent()
    section = next(s for s in SECTIONS if s.name == options.name)
    record = Record(options.out, section.name, options.seconds)
    signal.signal(signal.SIGTERM, _end)  # time is up: what a race has measured is still written
    try:
        import_module(f".{section.module}", __package__).run(setting_from(options), record)
    except Skip as skip:
        record.skipped(section.title, str(skip))
        return 3
    except Exception as error:
        traceback.print_exc()
        record.failure(section.title, error)
    return 1 if record.failed else 0


def _end(*_: object) -> None:
    sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
