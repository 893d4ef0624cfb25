"""Writes checkpoints of published configurations with random weights, and exports them."""

import argparse
import os
import sys
import time
import traceback
from pathlib import Path

from .record import Record, Skip
from .setting import Setting, add_arguments, end_with_parent, setting_from

__all__ = ["PRECISION", "bundle_at", "checkpoint_at", "wait_for"]

PRECISION = "bf16"
"""Of both sides: diffusers then decodes in bfloat16 too, where it would turn SDXL's VAE to float32 in float16."""
_SIZES = {"sdxl": "1024x1024", "sd15": "512x512"}
_TINY = {"sdxl": "sdxl", "sd15": "sd1"}


def checkpoint_at(setting: Setting, kind: str) -> Path:
    """Return the folder of a checkpoint."""
    return setting.work / f"{kind}-checkpoint"


def bundle_at(setting: Setting, kind: str) -> Path:
    """Return the folder of a bundle; it is there when it is whole."""
    return setting.work / f"{kind}-bundle"


def wait_for(folder: Path, setting: Setting, kind: str, record: Record | None = None) -> None:
    """Wait until a checkpoint or a bundle is there; with a record, as long as its section has time."""
    failed = setting.work / f"{kind}.failed"
    while not folder.exists():
        if failed.exists():
            raise RuntimeError(f"{kind} could not be prepared: {failed.read_text()}")
        if record is not None and record.left < 10:
            raise Skip(f"{folder} was not there in time; see prepare.log")
        time.sleep(0.2)


def _prepare(setting: Setting, kind: str) -> None:
    from sdengine.export import export_bundle

    started = time.perf_counter()
    checkpoint, bundle = checkpoint_at(setting, kind), bundle_at(setting, kind)
    if not checkpoint.exists():
        if setting.scale == "tiny":
            from ...checkpoints import BUILDERS

            BUILDERS[_TINY[kind]](checkpoint)
        else:
            _write_full(kind, checkpoint)
    written = time.perf_counter()
    if not bundle.exists():
        sizes = _SIZES[kind] if setting.scale == "full" else "64x64"
        aside = bundle.with_name(f"{bundle.name}.{os.getpid()}")
        export_bundle(checkpoint, aside, engines=["torch"], precision=PRECISION, sizes=sizes, verify="off")
        aside.rename(bundle)
    print(f"{kind}: checkpoint {written - started:.1f} s, export {time.perf_counter() - written:.1f} s", flush=True)


def _write_full(kind: str, folder: Path) -> None:
    benchmarks = Path(__file__).parents[3] / "benchmarks"
    sys.path.insert(0, str(benchmarks))  # scripts that are run from their own folder
    from published_configs import KINDS
    from random_checkpoint import write_checkpoint

    aside = folder.with_name(f"{folder.name}.{os.getpid()}")
    write_checkpoint(KINDS[kind], aside, dtype=PRECISION)
    aside.rename(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="+")
    add_arguments(parser)
    options = parser.parse_args()
    end_with_parent()
    for each in options.kinds:
        mark = setting_from(options).work / f"{each}.failed"
        mark.unlink(missing_ok=True)
        try:
            _prepare(setting_from(options), each)
        except Exception as error:
            traceback.print_exc()
            mark.write_text(f"{type(error).__name__}: {error}")
