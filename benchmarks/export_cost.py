"""What an export costs: seconds, peak memory and bytes written, step by step.

::

    python benchmarks/random_checkpoint.py sdxl /tmp/sdxl --dtype fp16
    python benchmarks/export_cost.py /tmp/sdxl [--precision fp16] [--engine tensorrt-rtx]

Peak memory is the process's largest resident size so far, torch included. Linked weights take no space.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

from sdengine.export import export_bundle


def main() -> None:
    """Export into a temporary folder beside the checkpoint's file system and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--prior", type=Path, help="of a decoder of Kandinsky 2.2")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--engine", default="tensorrt-rtx")
    arguments = parser.parse_args()
    started = before = time.perf_counter()
    print("| step | s | peak MB |\n|---|---:|---:|", flush=True)

    def report(line: str) -> None:
        nonlocal before
        now = time.perf_counter()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"| {line} | {now - before:.1f} | {peak:.0f} |", flush=True)
        before = now

    with tempfile.TemporaryDirectory(dir=arguments.checkpoint.resolve().parent) as folder:
        bundle = export_bundle(
            arguments.checkpoint,
            Path(folder) / "bundle",
            engines=[arguments.engine],
            precision=arguments.precision,
            stop_after="graphs",
            prior=arguments.prior,
            verify="off",
            report=report,
        )
        report("hashing and writing the manifest")
        print(f"\n{time.perf_counter() - started:.1f} s in all\n\n| network | MB | written |\n|---|---:|---:|")
        for name, network in bundle.manifest.networks.items():
            file = bundle.file(network.weights)
            size = file.stat().st_size
            written = 0 if file.stat().st_nlink > 1 else size
            print(f"| {name} | {size / 1e6:.1f} | {written / 1e6:.1f} |")
        graphs = sum(
            bundle.manifest.files[graph.file].bytes
            for component in bundle.manifest.components.values()
            for graph in component.graphs.values()
        )
        print(f"| graphs | {graphs / 1e6:.1f} | {graphs / 1e6:.1f} |")


if __name__ == "__main__":
    main()
