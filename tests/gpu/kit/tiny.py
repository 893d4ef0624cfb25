"""Exports the tiny bundles beforehand: ``python -m tests.gpu.kit.tiny FOLDER``, to be given as ``--tiny FOLDER``."""

import argparse
import shutil
from pathlib import Path

from ...bundles import bundle_of
from .parity import KINDS

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.kit.tiny")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    for kind, controlnets in KINDS.items():
        shutil.copytree(bundle_of(kind, controlnets=controlnets, engines=["torch"]), folder / kind)
