"""The buffers of a batch: what the components read and write, and the engines' calls on them."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from ...engines.engine import Engine
from ...engines.memory import HOST, Buffer, Memory
from ...engines.spec import ComponentSpec, TensorSpec
from .numbers import Field, NumberLayout
from .sample import Sample

__all__ = ["BatchBuffers", "Launch"]


class Launch:
    """The engines' calls for S samples on R rows; two of each, as the state alternates between two buffers."""

    def __init__(
        self,
        key: tuple[int, int],
        layout: NumberLayout,
        before: Sequence[Sequence[Callable[[], None]]],
        denoiser: Sequence[Callable[[], None]],
        carried: Sequence[Buffer],
    ) -> None:
        self.key = key
        self.layout = layout
        self.before = [[calls[i] for calls in before] for i in (0, 1)]
        self.denoiser = denoiser
        self.carried = carried


class BatchBuffers:
    """Memory for a number of samples and rows, allocated once.

    In every tensor the sample or the row is the first axis: a slot, or a row, is one contiguous part of each.

    Args:
        engines: by component, in the order in which they run; the last is the denoiser.
        sample: a sample of the bucket; its inputs have the shapes of all.
        slots: the most samples.
        rows: the most rows.

    Attributes:
        memory: where they are.
        now: which of the two states is the current one.
        numbers: the inputs that are numbers of an evaluation.
        current: where those of the running evaluation are, for all samples, one behind the other.
        row_sample: int64 [rows], which slot each row belongs to.
        noise: float32 [slots, C, h, w], of the running evaluation.

    """

    def __init__(self, engines: Mapping[str, Engine], sample: Sample, *, slots: int, rows: int) -> None:
        self._engines = dict(engines)
        self._denoiser = sample.components[-1]
        self._slots, self._rows = slots, rows
        memory: Memory = self._engines[self._denoiser].memory
        # Engines with different memories exchange tensors on the host.
        self.memory = memory if all(engine.memory is memory for engine in self._engines.values()) else HOST
        self.now = 0
        self._sort_inputs()
        self._allocate(sample)
        self._launches: dict[tuple[int, int], Launch] = {}
        self._flows_are_zero = False

    def _sort_inputs(self) -> None:
        """Divide the inputs of all components by how they are filled."""
        self.numbers: dict[Field, TensorSpec] = {}
        self._fixed: dict[Field, TensorSpec] = {}
        self._carried: dict[str, TensorSpec] = {}
        last = self._denoiser
        shared = {tensor.name for tensor in self._engines[last].spec.inputs if _is_number(tensor)}
        for component in (last, *(name for name in self._engines if name != last)):
            for tensor in self._engines[component].spec.inputs:
                if _is_number(tensor):
                    if component == last or tensor.name not in shared:
                        self.numbers[component, tensor.name] = tensor
                elif tensor.changes == "request" and tensor.name != "row_sample":
                    self._fixed[component, tensor.name] = tensor
                elif tensor.changes == "evaluation" and tensor.name != "noise":
                    self._carried[tensor.name] = tensor

    def _allocate(self, sample: Sample) -> None:
        spec = self._engines[self._denoiser].spec
        height, width = sample.state.shape[2:]
        axes = {"S": self._slots, "R": self._rows, "h": height, "w": width}
        zeros = self.memory.zeros

        def filled(component: str, tensor: TensorSpec) -> Buffer:
            count = self._slots if tensor.owner == "sample" else self._rows
            return zeros((count, *sample.inputs[component][tensor.name].shape[1:]), tensor.dtype)

        self._states = [zeros(spec.input("state").resolve(axes), np.float32) for _ in range(2)]
        self.noise = zeros(spec.input("noise").resolve(axes), np.float32)
        self.row_sample = zeros((self._rows,), np.int64)
        self._constant = {field: filled(field[0], tensor) for field, tensor in self._fixed.items()}
        copies = 3 if len(self._engines) > 1 else 1
        self._flows = [
            {name: zeros(tensor.resolve(axes), tensor.dtype) for name, tensor in self._carried.items()}
            for _ in range(copies)
        ]
        self.current = zeros((NumberLayout(self.numbers, self._slots, self._rows).size,), np.float32)

    # -- what samples bring -------------------------------------------------------------------------------------------

    @property
    def state(self) -> Buffer:
        """The current state, float32 [slots, K, C, h, w]."""
        return self._states[self.now]

    def fill(self, sample: Sample, slot: int, row: int) -> None:
        """Copy a sample's state and inputs into its slot, and into its rows from ``row`` on."""
        state = sample.state if sample._memory in (self.memory, HOST) else sample._memory.read(sample.state)
        self.memory.copy(self.state[slot], state)
        for (component, name), buffer in self._constant.items():
            source = sample.inputs[component][name]
            first = slot if self._fixed[component, name].owner == "sample" else row
            self.memory.copy(buffer[first : first + source.shape[0]], source)

    def move_slot(self, source: int, target: int) -> None:
        """Copy what belongs to a slot into another."""
        for buffer in (self.state, *self._constant_of("sample")):
            self.memory.copy(buffer[target], buffer[source])

    def move_row(self, source: int, target: int) -> None:
        """Copy what belongs to a row into another."""
        for buffer in self._constant_of("row"):
            self.memory.copy(buffer[target], buffer[source])

    def _constant_of(self, owner: str) -> list[Buffer]:
        return [buffer for field, buffer in self._constant.items() if self._fixed[field].owner == owner]

    def release(self) -> None:
        """Release the memory and the engines' calls on it."""
        self._launches.clear()
        self._constant.clear()
        self._states, self._flows = [], []

    # -- running ------------------------------------------------------------------------------------------------------

    def run(self, launch: Launch, before: bool) -> None:
        """Launch every component once.

        Args:
            launch: the calls.
            before: whether the components before the denoiser run; else what they would pass on is zero.

        """
        if before:
            for call in launch.before[self.now]:
                call()
            self._flows_are_zero = False
        elif launch.carried and not self._flows_are_zero:
            for buffer in launch.carried:
                self.memory.clear(buffer)
            self._flows_are_zero = True
        launch.denoiser[self.now]()
        self.now = 1 - self.now

    def forget_flows(self) -> None:
        """Take what flows between components for unknown again: it may not be zero any more."""
        self._flows_are_zero = False

    def launch_for(self, samples: int, rows: int) -> Launch:
        """Return the engines' calls on the first part of the buffers; bound at first use."""
        key = (samples, rows)
        if key not in self._launches:
            self._launches[key] = self._bind(samples, rows)
        return self._launches[key]

    def _bind(self, samples: int, rows: int) -> Launch:
        layout = NumberLayout(self.numbers, samples, rows)
        numbers = layout.views(self.current)
        states = [state[:samples] for state in self._states]
        # What is carried alternates between two buffers; the first of the three stays zero.
        at = dict.fromkeys(self._carried, 0)
        before: list[list[Callable[[], None]]] = []
        for component, engine in self._engines.items():
            inputs = self._inputs_of(component, engine.spec, numbers, samples, rows)
            inputs |= {name: self._flows[i][name][:rows] for name, i in at.items() if _has(engine.spec, name)}
            if component == self._denoiser:
                calls = [engine.prepare({**inputs, "state": states[i]}, {"next_state": states[1 - i]}) for i in (0, 1)]
                carried = [self._flows[i][name] for name, i in at.items() if i]
                return Launch((samples, rows), layout, before, calls, carried)
            at |= {name: 1 + i % 2 for name, i in at.items() if f"next_{name}" in _names(engine.spec.outputs)}
            outputs = {t.name: self._flows[at[_before(t)]][_before(t)][:rows] for t in engine.spec.outputs}
            before.append([engine.prepare({**inputs, "state": state}, outputs) for state in states])
        raise AssertionError("the denoiser is the last component")

    def _inputs_of(
        self, component: str, spec: ComponentSpec, numbers: Mapping[Field, Buffer], samples: int, rows: int
    ) -> dict[str, Buffer]:
        """Return the inputs of a component, except its state and what one component passes to the next."""
        counts = {"sample": samples, "row": rows}
        available: dict[str, Buffer] = {"row_sample": self.row_sample[:rows], "noise": self.noise[:samples]}
        available |= {name: buffer for (owner, name), buffer in numbers.items() if owner == self._denoiser}
        available |= {name: buffer for (owner, name), buffer in numbers.items() if owner == component}
        for (owner, name), buffer in self._constant.items():
            if owner == component:
                available[name] = buffer[: counts[self._fixed[owner, name].owner]]
        return {name: buffer for name, buffer in available.items() if _has(spec, name)}


def _is_number(tensor: TensorSpec) -> bool:
    return tensor.changes == "evaluation" and tensor.is_number and tensor.name != "noise"


def _has(spec: ComponentSpec, name: str) -> bool:
    return name in _names(spec.inputs)


def _names(tensors: Iterable[TensorSpec]) -> set[str]:
    return {tensor.name for tensor in tensors}


def _before(output: TensorSpec) -> str:
    """Return the name of the input that an output becomes."""
    return output.name.removeprefix("next_")
