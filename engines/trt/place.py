"""Which of a bundle's plans runs here."""

from ..bundle.bundle import Bundle
from ..bundle.manifest import EngineFile
from ..cuda.gpu import Gpu
from ..errors import EngineError
from .library import Library
from .plan_record import read_record

__all__ = ["plan_for"]


def plan_for(library: Library, bundle: Bundle, component: str, precision: str, gpu: Gpu, version: str) -> str:
    """Return the plan's name in the bundle.

    Nothing is deserialised: what the manifest says is compared with what is here.

    Raises:
        EngineError: there is no plan, or it was built for another GPU or version; says what to run.

    """
    key = (library.engine, component, precision)
    plans = [p for p in bundle.manifest.built if (p.engine, p.component, p.precision) == key]
    fix = f"run `sdengine build {bundle.path.name} --engine {library.engine}` here"
    if not plans:
        raise EngineError(f"the bundle holds no {library.engine} plan of {component} in {precision}; {fix}")
    for built in plans:
        if _runs_on(library, bundle, built, gpu, version):
            return built.file
    have = ", ".join(f"{built.target} with {library.engine} {built.version}" for built in plans)
    raise EngineError(
        f"{component}: built for {have}; here is {gpu.generation} ({gpu.model}) with {library.engine} {version}; {fix}"
    )


def _runs_on(library: Library, bundle: Bundle, built: EngineFile, gpu: Gpu, version: str) -> bool:
    if library.ahead_of_time:
        return built.version == version and gpu.generation in built.target.split("+")
    options = read_record(bundle, built.file).source.options
    major_same = built.version.split(".")[0] == version.split(".")[0]
    fits_version = built.version == version or (options.version_compatible and major_same)
    if options.hardware_compatible:
        return fits_version and int(gpu.generation.removeprefix("sm")) >= 80
    return fits_version and built.target == f"{gpu.generation}-{gpu.model}"
