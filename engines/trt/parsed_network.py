"""Parses a graph into a strongly typed network."""

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from .failure import parse_error
from .messages import Messages

__all__ = ["MARKED", "layers_by_precision", "mark_outputs", "parsed_network"]

MARKED = "marked:"
"""Before the name of a value in bfloat16, in the name of its output."""
_FLOATS = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16"}


def parsed_network(
    library: Any, builder: Any, graph: Path, component: str, engine: str, messages: Messages
) -> tuple[Any, Any]:
    """Parse a graph; its weights are read from the file beside it.

    Args:
        library: the module.
        builder: its builder.
        graph: the ONNX file.
        component: what it is, for messages.
        engine: what it is compiled for, for messages.
        messages: what the library says.

    Returns:
        The network and its parser, which owns the weights and must live as long.

    Raises:
        EngineError: the parser refuses the graph.

    """
    # Every network of TensorRT 11 is strongly typed and the flag harmless; for 10 it is what makes it so.
    typed = 1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = library.OnnxParser(network, builder.logger)
    if not parser.parse_from_file(str(graph)):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        described = [(error.node_operator(), error.node_name(), error.desc()) for error in errors]
        raise parse_error(component, engine, described, messages.errors)
    _allow_decomposition(library, network)
    return network, parser


def mark_outputs(library: Any, network: Any, names: Collection[str]) -> None:
    """Make floating-point values of a network its outputs, and nothing else; bfloat16, which numpy lacks, as float32.

    Values that the parser has folded are gone, and left out.
    """
    tensors = [layer.get_output(i) for layer in _layers(network) for i in range(layer.num_outputs)]
    for tensor in [network.get_output(i) for i in range(network.num_outputs)]:
        network.unmark_output(tensor)
    for tensor in tensors:
        if tensor.name not in names or tensor.dtype.name not in _FLOATS:
            continue
        if tensor.dtype == library.DataType.BF16:
            shown = network.add_cast(tensor, library.DataType.FLOAT).get_output(0)
            shown.name = f"{MARKED}{tensor.name}"
            network.mark_output(shown)
        else:
            network.mark_output(tensor)


def _layers(network: Any) -> Iterator[Any]:
    return (network.get_layer(i) for i in range(network.num_layers))


def _allow_decomposition(library: Any, network: Any) -> None:
    """Let attention be computed by several kernels where there is no fused one for its head size, as in a VAE (512).

    Where a fused kernel exists it is still taken. Releases before 10.14 know no attention layer.
    """
    kind = getattr(library.LayerType, "ATTENTION_INPUT", None)
    for layer in _layers(network) if kind is not None else ():
        if layer.type == kind:
            layer.__class__ = library.IAttentionInputLayer  # get_layer returns the base class
            layer.attention.decomposable = True


def layers_by_precision(network: Any) -> dict[str, dict[str, int]]:
    """Count the layers of each precision by kind: what the compiler must keep, as the network is strongly typed.

    Layers that compute shapes and indices are left out, and so are constants.
    """
    counts: dict[str, Counter[str]] = {}
    for layer in _layers(network):
        kind = layer.type.name
        if layer.num_outputs and kind != "CONSTANT":
            precision = _FLOATS.get(layer.get_output(0).dtype.name)
            if precision is not None:
                counts.setdefault(precision, Counter())[kind.lower()] += 1
    return {precision: dict(sorted(kinds.items())) for precision, kinds in sorted(counts.items())}
