"""Every name that the builder uses exists in the real library, with the arguments that it is given."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import sdengine.engines.trt.build_plans
from sdengine.engines.trt import refit
from sdengine.engines.trt.build_options import TARGETS, BuildOptions
from sdengine.engines.trt.library import LIBRARIES, ONLY_TENSORRT

trt = pytest.importorskip("tensorrt_rtx")

FOLDER = Path(sdengine.engines.trt.build_plans.__file__).parent
FILES = [
    "compile.py", "messages.py", "parsed_network.py", "bound_context.py", "plan_engine.py", "contexts.py", "refit.py",
    "streaming.py",
]  # fmt: skip

# What the variables of those files hold.
CLASSES = {
    "builder": trt.Builder,
    "network": trt.INetworkDefinition,
    "parser": trt.OnnxParser,
    "shapes": trt.IOptimizationProfile,
    "layer": trt.ILayer,
    "error": trt.ParserError,
    "engine": trt.ICudaEngine,
    "context": trt.IExecutionContext,
    "runtime": trt.Runtime,
    "refitter": trt.Refitter,
    "cache": trt.IRuntimeCache,
}
CONFIGS = {"compile.py": trt.IBuilderConfig, "contexts.py": trt.IRuntimeConfig}


def _attributes(tree: ast.AST) -> Iterator[tuple[str, ast.Attribute]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            base: ast.AST = node
            while isinstance(base, ast.Attribute):
                base = base.value
            if isinstance(base, ast.Name):
                yield base.id, node


def _chain(node: ast.AST) -> list[str]:
    return [*_chain(node.value), node.attr] if isinstance(node, ast.Attribute) else []


def _uses(file: str) -> list[tuple[str, list[str]]]:
    tree = ast.parse((FOLDER / file).read_text())
    found = [(name, _chain(node)) for name, node in _attributes(tree)]
    # self._context.x is the same as context.x
    return [
        (chain[0].lstrip("_"), chain[1:]) if name == "self" and chain[1:] else (name, chain) for name, chain in found
    ]


@pytest.mark.parametrize("file", FILES)
def test_names_exist(file: str) -> None:
    checked = 0
    kinds = {**CLASSES, "config": CONFIGS.get(file, trt.IBuilderConfig)}
    for name, chain in _uses(file):
        if name in ("module", "_module", "library") and chain[0][0].isupper():
            value: object = trt
            for attribute in chain:
                value = getattr(value, attribute)
            checked += 1
        elif name in kinds and (file, name) != ("messages.py", "error"):
            # A layer is cast to its own class before its attention is reached.
            classes = (kinds[name], trt.IAttentionInputLayer) if name == "layer" else (kinds[name],)
            assert any(hasattr(kind, chain[0]) for kind in classes), f"{file}: {name}.{chain[0]}"
            checked += 1
    least = {"compile.py": 15, "messages.py": 4, "parsed_network.py": 8, "bound_context.py": 6, "plan_engine.py": 2}
    least |= {"contexts.py": 8, "refit.py": 6, "streaming.py": 3}
    assert checked >= least[file]


def test_keywords_exist() -> None:
    """The bindings' own text is the only place where their signatures are written."""
    found = 0
    for file in FILES:
        for node in ast.walk(ast.parse((FOLDER / file).read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                base = node.func.value
                kinds = {**CLASSES, "config": CONFIGS.get(file, trt.IBuilderConfig)}
                if isinstance(base, ast.Name) and base.id in kinds:
                    method = getattr(kinds[base.id], node.func.attr)
                    for keyword in node.keywords:
                        assert f"{keyword.arg}:" in method.__doc__, f"{file}: {node.func.attr}({keyword.arg})"
                        found += 1
    assert found >= 1


def test_every_target_can_be_named() -> None:
    for target in TARGETS:
        assert hasattr(trt.ComputeCapability, target.upper())
    assert {name for name in dir(trt.ComputeCapability) if name.startswith("SM")} == {t.upper() for t in TARGETS}


def test_methods_are_the_ones_that_the_library_calls() -> None:
    assert hasattr(trt.ILogger, "log") and hasattr(trt.IStreamWriter, "write")
    for method in ("phase_start", "step_complete", "phase_finish"):
        assert hasattr(trt.IProgressMonitor, method)
    assert hasattr(trt.IAttentionInputLayer, "attention") and hasattr(trt.IAttention, "decomposable")
    assert hasattr(trt.LayerType, "ATTENTION_INPUT")


def test_flags_and_types_of_refits_exist() -> None:
    for flag in ("REFIT", "STRIP_PLAN", "REQUIRE_USER_ALLOCATION"):
        assert hasattr(trt.BuilderFlag, flag)
    for kind in refit._TYPES.values():
        assert hasattr(trt.DataType, kind)
    assert "ptr: typing.SupportsInt, count: typing.SupportsInt" in trt.Weights.__init__.__doc__
    weights = trt.Weights(trt.DataType.HALF, 256, 7)
    assert (weights.size, weights.nbytes) == (7, 14)


def test_a_context_is_made_from_a_strategy_or_a_configuration() -> None:
    signatures = trt.ICudaEngine.create_execution_context.__doc__
    assert "strategy: " in signatures and "runtime_config: " in signatures
    assert hasattr(trt.DynamicShapesKernelSpecializationStrategy, "EAGER")


def test_what_only_tensorrt_has_is_an_option() -> None:
    assert set(ONLY_TENSORRT) <= set(BuildOptions.__struct_fields__)
    assert LIBRARIES["tensorrt-rtx"].load() is trt
