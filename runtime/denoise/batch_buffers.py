"""The buffers of a batch, which the components read and write, and the engines' calls on these buffers."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ...engines.engine import Engine
from ...engines.memory import HOST, Buffer, Memory
from ...engines.spec import ComponentSpec, TensorSpec
from .numbers import InputName, NumberLayout
from .sample import Sample

__all__ = ["BatchBuffers", "Launch"]


class Launch:
    """The engines' calls for S samples on R rows.

    The state alternates between two buffers: ``[0]`` of each pair of calls reads the first and writes the second.

    Args:
        key: (S, R).
        layout: where the numbers of each sample are.
        preceding: for each component before the denoiser, its two calls.
        denoiser: its two calls.
        residuals: the buffers that the preceding components write for the denoiser.

    """

    def __init__(
        self,
        key: tuple[int, int],
        layout: NumberLayout,
        preceding: Sequence[Sequence[Callable[[], None]]],
        denoiser: Sequence[Callable[[], None]],
        residuals: Sequence[Buffer],
    ) -> None:
        self.key = key
        self.layout = layout
        self.preceding = [[calls[i] for calls in preceding] for i in (0, 1)]
        self.denoiser = denoiser
        self.residuals = residuals


class BatchBuffers:
    """Memory for a number of samples and rows, allocated once.

    The first axis of every tensor counts samples or rows: a slot, or a row, is one contiguous part of each.

    Args:
        engines: by component, in the order in which they run; the last is the denoiser.
        sample: a sample whose inputs have the shapes that those of all samples will have.
        slots: the most samples.
        rows: the most rows.

    Attributes:
        memory: where the buffers are.
        current_state: 0 or 1, which of the two states is the current one.
        numbers: the inputs that are a few numbers for each sample or row, and change with the evaluation.
        current_numbers: float32 [size of a :class:`.NumberLayout`], those of the evaluation that runs next, of all
            samples.
        row_sample: int64 [rows], the slot that each row belongs to.
        noise: float32 [slots, C, h, w], for the evaluation that runs next.

    """

    def __init__(self, engines: Mapping[str, Engine], sample: Sample, *, slots: int, rows: int) -> None:
        self._engines = dict(engines)
        self._denoiser = sample.components[-1]
        self._slots, self._rows = slots, rows
        memory: Memory = self._engines[self._denoiser].memory
        # Engines with different memories exchange tensors on the host.
        self.memory = memory if all(engine.memory is memory for engine in self._engines.values()) else HOST
        self.current_state = 0
        self._sort_inputs()
        self._allocate(sample)
        self._launches: dict[tuple[int, int], Launch] = {}
        self._residuals_are_zero = False

    def _sort_inputs(self) -> None:
        """Sort the inputs of all components by how they are filled.

        Numbers change with the evaluation, constant inputs with the sample. Residuals are what ControlNets write and
        the next ControlNet, or the denoiser, reads in the same evaluation.
        """
        self.numbers: dict[InputName, TensorSpec] = {}
        self._constant_specs: dict[InputName, TensorSpec] = {}
        self._residual_specs: dict[str, TensorSpec] = {}
        last = self._denoiser
        shared = {tensor.name for tensor in self._engines[last].spec.inputs if _is_number(tensor)}
        for component in (last, *(name for name in self._engines if name != last)):
            for tensor in self._engines[component].spec.inputs:
                if _is_number(tensor):
                    if component == last or tensor.name not in shared:
                        self.numbers[component, tensor.name] = tensor
                elif tensor.changes == "request" and tensor.name != "row_sample":
                    self._constant_specs[component, tensor.name] = tensor
                elif tensor.changes == "evaluation" and tensor.name != "noise":
                    self._residual_specs[tensor.name] = tensor

    def _allocate(self, sample: Sample) -> None:
        spec = self._engines[self._denoiser].spec
        height, width = sample.state.shape[2:]
        axes = {"S": self._slots, "R": self._rows, "h": height, "w": width}
        zeros = self.memory.zeros

        def constant(component: str, tensor: TensorSpec) -> Buffer:
            count = self._slots if tensor.owner == "sample" else self._rows
            return zeros((count, *sample.inputs[component][tensor.name].shape[1:]), tensor.dtype)

        self._states = [zeros(spec.input("state").resolve(axes), np.float32) for _ in range(2)]
        self.noise = zeros(spec.input("noise").resolve(axes), np.float32)
        self.row_sample = zeros((self._rows,), np.int64)
        self._constant = {name: constant(name[0], tensor) for name, tensor in self._constant_specs.items()}
        copies = 3 if len(self._engines) > 1 else 1
        self._residuals = [
            {name: zeros(tensor.resolve(axes), tensor.dtype) for name, tensor in self._residual_specs.items()}
            for _ in range(copies)
        ]
        self.current_numbers = zeros((NumberLayout(self.numbers, self._slots, self._rows).size,), np.float32)

    # -- samples ------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> Buffer:
        """The current state, float32 [slots, K, C, h, w]."""
        return self._states[self.current_state]

    def fill(self, sample: Sample, slot: int, row: int) -> None:
        """Copy a sample's state and inputs into its slot, and into its rows from ``row`` on."""
        state = sample.state if sample._memory in (self.memory, HOST) else sample._memory.read(sample.state)
        self.memory.copy(self.state[slot], state)
        for (component, name), buffer in self._constant.items():
            source = sample.inputs[component][name]
            first = slot if self._constant_specs[component, name].owner == "sample" else row
            self.memory.copy(buffer[first : first + source.shape[0]], source)

    def move_slot(self, source: int, target: int) -> None:
        """Copy the state and inputs of the sample in one slot to another slot."""
        for buffer in (self.state, *self._constant_of("sample")):
            self.memory.copy(buffer[target], buffer[source])

    def move_row(self, source: int, target: int) -> None:
        """Copy the inputs of one row to another row."""
        for buffer in self._constant_of("row"):
            self.memory.copy(buffer[target], buffer[source])

    def _constant_of(self, owner: str) -> list[Buffer]:
        return [buffer for name, buffer in self._constant.items() if self._constant_specs[name].owner == owner]

    def release(self) -> None:
        """Release the memory and the engines' calls on it."""
        self._launches.clear()
        self._constant.clear()
        self._states, self._residuals = [], []

    # -- running ------------------------------------------------------------------------------------------------------

    def run(self, launch: Launch, run_preceding: bool) -> None:
        """Launch every component once.

        Args:
            launch: the calls.
            run_preceding: whether the components before the denoiser run; if not, their residuals are zeros.

        """
        if run_preceding:
            for call in launch.preceding[self.current_state]:
                call()
            self._residuals_are_zero = False
        elif launch.residuals and not self._residuals_are_zero:
            for buffer in launch.residuals:
                self.memory.clear(buffer)
            self._residuals_are_zero = True
        launch.denoiser[self.current_state]()
        self.current_state = 1 - self.current_state

    def assume_residuals_not_zero(self) -> None:
        """Let the next :meth:`run` without preceding components write the zeros again."""
        self._residuals_are_zero = False

    def launch_for(self, samples: int, rows: int) -> Launch:
        """Return the engines' calls on the first part of the buffers; bound at first use."""
        key = (samples, rows)
        if key not in self._launches:
            self._launches[key] = self._bind(samples, rows)
        return self._launches[key]

    def _bind(self, samples: int, rows: int) -> Launch:
        layout = NumberLayout(self.numbers, samples, rows)
        numbers = layout.views(self.current_numbers)
        states = [state[:samples] for state in self._states]
        # Residuals are in the first buffer, which stays zero, until a component writes them; each component then reads
        # the second and writes the third, or the other way round.
        buffer_of = dict.fromkeys(self._residual_specs, 0)
        preceding: list[list[Callable[[], None]]] = []
        for component, engine in self._engines.items():
            inputs = self._inputs_of(component, engine.spec, numbers, samples, rows)
            inputs |= {
                name: self._residuals[i][name][:rows] for name, i in buffer_of.items() if _has(engine.spec, name)
            }
            if component == self._denoiser:
                calls = [engine.prepare({**inputs, "state": states[i]}, {"next_state": states[1 - i]}) for i in (0, 1)]
                residuals = [self._residuals[i][name] for name, i in buffer_of.items() if i]
                return Launch((samples, rows), layout, preceding, calls, residuals)
            written = {tensor.name: tensor.name.removeprefix("next_") for tensor in engine.spec.outputs}
            buffer_of |= {name: 1 + buffer_of[name] % 2 for name in written.values()}
            outputs = {output: self._residuals[buffer_of[name]][name][:rows] for output, name in written.items()}
            preceding.append([engine.prepare({**inputs, "state": state}, outputs) for state in states])
        raise AssertionError("the denoiser is the last component")

    def _inputs_of(
        self, component: str, spec: ComponentSpec, numbers: Mapping[InputName, Buffer], samples: int, rows: int
    ) -> dict[str, Buffer]:
        """Return the inputs of a component, except the state and the residuals."""
        counts = {"sample": samples, "row": rows}
        available: dict[str, Buffer] = {"row_sample": self.row_sample[:rows], "noise": self.noise[:samples]}
        available |= {name: buffer for (owner, name), buffer in numbers.items() if owner == self._denoiser}
        available |= {name: buffer for (owner, name), buffer in numbers.items() if owner == component}
        for (owner, name), buffer in self._constant.items():
            if owner == component:
                available[name] = buffer[: counts[self._constant_specs[owner, name].owner]]
        return {name: buffer for name, buffer in available.items() if _has(spec, name)}


def _is_number(tensor: TensorSpec) -> bool:
    return tensor.changes == "evaluation" and tensor.is_number and tensor.name != "noise"


def _has(spec: ComponentSpec, name: str) -> bool:
    return any(tensor.name == name for tensor in spec.inputs)
