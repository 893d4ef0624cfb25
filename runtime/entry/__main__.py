"""``python -m sdengine`` is ``sdengine``; installed as a module of the namespace, which has no other."""

from sdengine.runtime.cli import main

main()
