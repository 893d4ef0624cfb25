"""Writes what was compared in Polygraphy's format, and the line that repeats the comparison."""

import os
import shlex
import shutil
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

from polygraphy.comparator import IterationResult, RunResults
from polygraphy.json import save_json
from polygraphy.logger import G_LOGGER

from ...engines.bundle.whole_folder import whole_folder
from ...engines.trt import LIBRARIES
from .compare import LayerComparison
from .departure import Departure, LayerDifference
from .graphs import with_outputs
from .subject import Subject

__all__ = ["COMMAND", "Saved"]

COMMAND = "repeat.sh"
_INPUTS, _EXPECTED, _ACTUAL, _GRAPH = "inputs.json", "expected.json", "actual.json", "marked.onnx"


class Saved:
    """Collects the values of the first layers that depart, and writes them."""

    def __init__(self) -> None:
        self._values: dict[str, LayerComparison] = {}

    def add(self, described: Sequence[LayerDifference], differences: Mapping[str, LayerComparison], most: int) -> None:
        """Remember the values that are over tolerance, ``most`` at most."""
        for layer in described:
            if layer.departs and len(self._values) < most:
                self._values[layer.value] = differences[layer.value]

    def write(
        self, folder: Path, subject: Subject, departure: Departure, outputs: Mapping[str, LayerComparison]
    ) -> None:
        """Write inputs, the expected and the engine's values, and the graph with these values as outputs.

        Args:
            folder: to be made, whole or not at all.
            subject: what was run.
            departure: the result.
            outputs: of the component, which are written too.

        """
        values = self._values | dict(outputs)
        weights = subject.bundle.manifest.networks[subject.bundle.component(subject.component).network].weights
        with (
            whole_folder(folder, overwrite=False, foreign=lambda _: []) as partial,
            G_LOGGER.verbosity(G_LOGGER.CRITICAL),
        ):
            save_json([OrderedDict(subject.inputs)], str(partial / _INPUTS))
            _results(departure.against, {n: v.expected for n, v in values.items()}).save(str(partial / _EXPECTED))
            _results(departure.engine, {n: v.actual for n, v in values.items()}).save(str(partial / _ACTUAL))
            model = subject.load(subject.runs)
            made = {name for node in model.graph.node for name in node.output}
            marked = with_outputs(model, [name for name in values if name in made])
            (partial / _GRAPH).write_bytes(marked.SerializeToString())
            _link(subject.bundle.file(weights), partial / Path(weights).name)
            (partial / COMMAND).write_text(f"#!/bin/sh\n{_line(subject, values)}\n", encoding="utf-8")


def _line(subject: Subject, values: Mapping[str, LayerComparison]) -> str:
    """Return the command: it runs the engine again where Polygraphy has it, else it compares what was saved."""
    environment, run = "", f"{_GRAPH} --onnxrt --load-inputs {_INPUTS}"
    compared = _EXPECTED
    if subject.engine in LIBRARIES:
        environment = "POLYGRAPHY_USE_TENSORRT_RTX=1 " if subject.engine == "tensorrt-rtx" else ""
        run = f"{_GRAPH} --trt --strongly-typed --load-inputs {_INPUTS}"
    elif subject.engine == "onnxruntime-cuda":
        run += " --providers cuda"
    elif subject.engine != "onnxruntime":
        run, compared = "", f"{_ACTUAL} {_EXPECTED}"
    allowed = " ".join(shlex.quote(f"{name}:{value.allowed:.6g}") for name, value in values.items())
    how = f"--atol {allowed} --rtol 0 --check-error-stat max --infinities-compare-equal"
    return " ".join(f"{environment}polygraphy run {run} --load-outputs {compared} {how}".split())


def _results(runner: str, values: Mapping[str, object]) -> RunResults:
    results = RunResults()
    results.append((runner, [IterationResult(outputs=OrderedDict(values), runtime=0.0, runner_name=runner)]))
    return results


def _link(source: Path, target: Path) -> None:
    """Put a network's weights beside the graph: linked where that can be, as they are large and only read."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
