"""No component makes a tensor on another device than its inputs': the meta device refuses it as a GPU does."""

import warnings

import pytest
import torch
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.eager.load_network import fuse_projections
from sdengine.engines.nets.component_module import component_module, network_from_config

from ...bundles import bundle_of


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("kind", "controlnets"), [("sd1", 1), ("sdxl", 1), ("sd_inpaint", 0), ("lcm", 0)])
def test_everything_stays_on_the_device(kind: str, controlnets: int, fused: bool) -> None:
    bundle = Bundle(bundle_of(kind, controlnets=controlnets, engines=["torch"]))
    for name, component in bundle.manifest.components.items():
        with torch.device("meta"):
            network = network_from_config(bundle.config(component.network), torch.bfloat16)
        if fused:
            fuse_projections(network)
        spec = next(iter(component.graphs.values())).spec
        axes = {axis: length.opt for axis, length in spec.axes.items()}
        inputs = [
            torch.empty(tensor.resolve(axes), dtype=getattr(torch, tensor.dtype), device="meta")
            for tensor in spec.inputs
        ]
        with torch.inference_mode():
            outputs = component_module(component.kind, network, spec)(*inputs)
        shapes = {tensor.name: tensor.resolve(axes) for tensor in spec.outputs}
        assert [tuple(output.shape) for output in outputs] == list(shapes.values()), name
        assert all(output.is_meta for output in outputs), name


@pytest.mark.parametrize(("kind", "controlnets"), [("sd1", 1), ("sdxl", 0)])
def test_torch_compile_traces_every_component_whole(kind: str, controlnets: int) -> None:
    bundle = Bundle(bundle_of(kind, controlnets=controlnets, engines=["torch"]))
    for name, component in bundle.manifest.components.items():
        network = network_from_config(bundle.config(component.network), torch.float32)
        fuse_projections(network)
        spec = next(iter(component.graphs.values())).spec
        axes = {axis: length.opt for axis, length in spec.axes.items()} | {"h": 8, "w": 8}
        inputs = [torch.zeros(tensor.resolve(axes), dtype=getattr(torch, tensor.dtype)) for tensor in spec.inputs]
        module = component_module(component.kind, network, spec)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of torch's own modules, as they are first imported
            torch.compiler.reset()  # the limit of recompilations counts what other tests compiled
        compiled = torch.compile(module, backend="eager", fullgraph=True, dynamic=False)
        with torch.inference_mode():
            outputs = compiled(*inputs)
            assert all(map(torch.equal, outputs, module(*inputs))), name
