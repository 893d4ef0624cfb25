"""What an export will write: networks, components, precisions and shapes, decided before anything is written."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..engines.component_specs import ShapeSource
from ..engines.errors import CheckpointError, UsageError, nearest
from ..engines.families import FAMILIES
from ..engines.kinds import IO_DTYPES, kind_of
from ..engines.nets.config import UNetConfig
from ..engines.nets.network_config import NetworkConfig
from ..engines.nets.vae_config import VAEConfig
from ..engines.registry import ENGINES
from ..engines.spec import AxisRange, ComponentSpec
from .checkpoint import Checkpoint, CheckpointComponent

__all__ = ["PRECISION_DTYPES", "ComponentPlan", "NetworkPlan", "check_controlnets", "plan_components", "precisions_for"]

PRECISION_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_STORED = {"fp32": None, "bf16": "BF16", "fp16": "F16"}
Axes = dict[str, AxisRange]


@dataclass(frozen=True, kw_only=True)
class NetworkPlan:
    """A network to write.

    Attributes:
        name: in the bundle.
        source: where its weights are.
        config: resolved.
        precisions: of its graphs.

    """

    name: str
    source: CheckpointComponent
    config: NetworkConfig
    precisions: tuple[str, ...]

    @property
    def store(self) -> str | None:
        """What to convert its weights to: the one precision asked for; None keeps the checkpoint's."""
        return _STORED[self.precisions[0]] if len(self.precisions) == 1 else None


@dataclass(frozen=True, kw_only=True)
class ComponentPlan:
    """A component to trace, once for each precision."""

    name: str
    kind: str
    network: NetworkPlan
    specs: dict[str, ComponentSpec]


def precisions_for(engines: Sequence[str], precision: str) -> tuple[str, ...]:
    """Return the precisions that graphs are needed in.

    Raises:
        UsageError: an engine or precision is not known, or an engine cannot run the precision.

    """
    precisions: dict[str, None] = {}
    for engine in engines:
        if engine not in ENGINES:
            names = ", ".join(ENGINES)
            raise UsageError(f"unknown engine {engine!r}; there are {names}{nearest(engine, ENGINES)}")
        takes = ENGINES[engine].precisions
        if precision not in ("auto", *PRECISION_DTYPES):
            raise UsageError(f"unknown precision {precision!r}; there are auto, {', '.join(PRECISION_DTYPES)}")
        if precision != "auto" and precision not in takes:
            raise UsageError(f"{engine} cannot run a graph in {precision}; it takes {', '.join(takes)}")
        precisions[takes[0] if precision == "auto" else precision] = None
    return tuple(precisions)


def plan_components(
    checkpoint: Checkpoint,
    controlnets: Sequence[CheckpointComponent],
    configs: dict[str, NetworkConfig],
    axes: Axes,
    precisions: tuple[str, ...],
    *,
    vae_tiling: bool = False,
) -> list[ComponentPlan]:
    """List the components of a checkpoint.

    Args:
        checkpoint: the checkpoint.
        controlnets: networks to add; they are called ``controlnet``, ``controlnet_2``, ...
        configs: resolved, by network.
        axes: ranges.
        precisions: of the graphs.
        vae_tiling: whether the VAE is for tiles only, whatever the size of the image.

    """
    sources = dict(checkpoint.components)
    sources |= {controlnet_name(i): source for i, source in enumerate(controlnets)}
    networks = {
        name: NetworkPlan(
            name=name,
            source=source,
            config=configs[name],
            precisions=_network_precisions(checkpoint, configs[name], precisions),
        )
        for name, source in sources.items()
    }
    components = []
    for name, network in networks.items():
        own = _of_tiles(axes, network.config) if vae_tiling and isinstance(network.config, VAEConfig) else axes
        components += _components(name, network, own, bool(controlnets))
    return components


def _of_tiles(axes: Axes, config: VAEConfig) -> Axes:
    """Return the ranges of a VAE that is given tiles: no larger than those that it was trained on."""
    most = config.sample_size // config.factor
    tile = {axis: min(most, axes[axis].max) for axis in ("h", "w")}
    return axes | {axis: AxisRange(1, length, length) for axis, length in tile.items()}


def controlnet_name(index: int) -> str:
    """Return the name of the ControlNet given in that place."""
    return "controlnet" if index == 0 else f"controlnet_{index + 1}"


def check_controlnets(configs: dict[str, NetworkConfig]) -> None:
    """Make sure that every ControlNet gives the maps that the UNet takes.

    Raises:
        CheckpointError: one is made for another UNet.

    """
    unet = configs["unet"]
    assert isinstance(unet, UNetConfig)
    for name, net in configs.items():
        if name.startswith("controlnet") and isinstance(net, UNetConfig):
            attends = any(level.depths for level in net.down) or net.mid_depth
            if net.maps() != unet.maps() or (attends and net.context != unet.context):
                widths, own = ([level.channels for level in config.down] for config in (net, unet))
                raise CheckpointError(
                    f"{name} does not fit the UNet: it has {widths} channels and attends to text of width "
                    f"{net.context}, the UNet has {own} and {unet.context}; a ControlNet is made for one family"
                )


def _network_precisions(checkpoint: Checkpoint, config: NetworkConfig, precisions: tuple[str, ...]) -> tuple[str, ...]:
    """Return the precisions of a network's graphs: a VAE that overflows in float16 is float32."""
    overflows = isinstance(config, VAEConfig) and config.force_upcast and FAMILIES[checkpoint.family].vae_overflows
    if not overflows:
        return precisions
    return tuple(dict.fromkeys("fp32" if p == "fp16" else p for p in precisions))


def _components(name: str, network: NetworkPlan, axes: Axes, controlled: bool) -> list[ComponentPlan]:
    components = []
    for component, kind in kind_of(network.config).components_of(name):
        specs = {}
        for precision in network.precisions:
            dtype = IO_DTYPES[precision]
            source = ShapeSource(name=component, config=network.config, dtype=dtype, axes=axes, controlled=controlled)
            specs[precision] = kind.spec(source)
        components.append(ComponentPlan(name=component, kind=kind.name, network=network, specs=specs))
    return components
