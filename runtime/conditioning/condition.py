"""The interface of conditions: they fill inputs of the components that run at each evaluation."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...engines.bundle.bundle import Bundle
from ...engines.engine import Array
from ...engines.memory import Buffer, Memory
from ..denoise.guidance import Guidance
from ..denoise.sample import Sample
from ..latents.seeds import NoiseStreams
from ..latents.start import Start
from ..open_engines import Components
from ..prior import ImageEmbeds
from ..prompt import EncodedPrompts
from ..request.job import Job
from ..schedule import Schedule

__all__ = ["Condition", "Part", "Preparation"]

F32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Part:
    """A condition's part of one sample.

    Attributes:
        inputs: by component and input, see :attr:`~sdengine.runtime.denoise.sample.Sample.inputs`.
        numbers: by component and input, see :attr:`~sdengine.runtime.denoise.sample.Sample.numbers`.
        runs: by component before the denoiser, bool [N]: whether it has anything to add.
        before: samples that must be finished before.
        begin: fills inputs with the results of those, and returns them by name; called once, when they are finished.

    """

    inputs: Mapping[str, Mapping[str, Buffer]] = field(default_factory=dict)
    numbers: Mapping[str, Mapping[str, F32]] = field(default_factory=dict)
    runs: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    before: tuple[Sample, ...] = ()
    begin: Callable[[], Mapping[str, F32]] | None = None


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """The data that conditions use, for the N images of one job.

    Attributes:
        job: the job.
        schedule: of each sample.
        guidance: of each sample.
        prompts: the encoded prompts, of families whose images are conditioned on text.
        embeds: embeddings of images, of families whose images are conditioned on those.
        start: where the images start from.
        streams: their noise.
        components: the engines.
        memory: where to put the inputs that are prepared.

    """

    job: Job
    schedule: Schedule
    guidance: Guidance
    prompts: EncodedPrompts | None
    embeds: Sequence[ImageEmbeds] = ()
    start: Start
    streams: NoiseStreams
    components: Components
    memory: Memory

    def chunks(self) -> Iterator[range]:
        """Divide the images into groups that the bundle can run at once."""
        most = self.components.spec("denoiser").axes["S"].max
        for first in range(0, self.job.images, most):
            yield range(first, min(first + most, self.job.images))

    def run(self, component: str, inputs: Mapping[str, Array], images: range) -> list[dict[str, Buffer]]:
        """Run a component for some images.

        Args:
            component: which one.
            inputs: by name, each ``[S, ...]`` or ``[S * rows, ...]``.
            images: the S images.

        Returns:
            The part of each image in the outputs, ``[1, ...]`` or ``[rows, ...]``.

        """
        outputs = self.components.run_into(self.memory, component, inputs)
        counts = {name: output.shape[0] // len(images) for name, output in outputs.items()}
        return [
            {name: output[i * counts[name] : (i + 1) * counts[name]] for name, output in outputs.items()}
            for i in range(len(images))
        ]


class Condition(Protocol):
    """Something that samples are conditioned on."""

    def components(self, job: Job, bundle: Bundle) -> tuple[str, ...]:
        """Return the components that it adds to every evaluation of a job, before the denoiser, in order."""

    def prepare(self, preparation: Preparation) -> list[Part]:
        """Compute once what does not change; return each image's part.

        Raises:
            UsageError: the request cannot be met.

        """
