"""``python -m sdengine.runtime`` is ``sdengine``."""

from .cli import main

main()
