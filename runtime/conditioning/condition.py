"""The interface of conditions, which fill inputs of the components that run at each evaluation."""

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
    """What a condition contributes to one sample; see :class:`~sdengine.runtime.denoise.sample.Sample`.

    Attributes:
        inputs: by component and input, those that stay constant.
        numbers: by component and input, those that change with the evaluation.
        runs: by component before the denoiser, bool [N]: whether it adds anything at that evaluation.
        text: the embeddings of the prompts, by input of the conditioner, float32 [rows, ...].
        before: samples of a prior that must be finished before this one begins.
        begin: called once, when those are finished: fills inputs with the embeddings that they give, and returns these
            by name.

    """

    inputs: Mapping[str, Mapping[str, Buffer]] = field(default_factory=dict)
    numbers: Mapping[str, Mapping[str, F32]] = field(default_factory=dict)
    runs: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    text: Mapping[str, F32] = field(default_factory=dict)
    before: tuple[Sample, ...] = ()
    begin: Callable[[], Mapping[str, F32]] | None = None


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """The data that conditions use, for all images of one job.

    Attributes:
        job: the job.
        schedule: the same for each sample.
        guidance: the same for each sample.
        prompts: the encoded prompts, in families whose images are conditioned on text.
        embeds: the embeddings of images, in families whose images are conditioned on those.
        start: the latents that denoising starts from.
        streams: their noise.
        components: the engines.
        memory: where the inputs of the samples are made.

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
        """Divide the indices of the images into ranges that the bundle can run at once."""
        most = self.components.spec("denoiser").axes["S"].max
        for first in range(0, self.job.images, most):
            yield range(first, min(first + most, self.job.images))

    def run(self, component: str, inputs: Mapping[str, Array], images: range) -> list[dict[str, Buffer]]:
        """Run a component for some images.

        Args:
            component: its name.
            inputs: by name, each ``[S, ...]`` or ``[S * rows, ...]``.
            images: the indices of the S images.

        Returns:
            For each image its part of the outputs, ``[1, ...]`` or ``[rows, ...]``, by name.

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
        """Return the components that run before the denoiser at every evaluation of a job, in order."""

    def prepare(self, preparation: Preparation) -> list[Part]:
        """Compute what stays constant while denoising; return what the condition contributes to each image.

        Raises:
            UsageError: the job does not suit the bundle.

        """
