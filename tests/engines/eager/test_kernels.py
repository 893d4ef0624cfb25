"""The Triton kernels compile for the GPUs they are meant for, which needs none, and compute what they say."""

import os
import subprocess
import sys

import pytest

triton = pytest.importorskip("triton", reason="the kernels are written in Triton")


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_every_kernel_compiles_without_a_gpu(capability: int, dtype: str) -> None:
    from sdengine.engines.eager.kernels import add_norm, geglu, group_norm
    from sdengine.engines.eager.kernels.launch import LAUNCH
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    half, single = f"*{dtype}", "*fp32"
    kernels = {
        group_norm._moments: ({"x": half, "means": single, "deviations": single}, {"P": 16, "C": 512}),
        group_norm._groups: (
            {"means": single, "deviations": single, "centre": single, "scale": single},
            {"S": 32, "W": 16},
        ),
        group_norm._apply: (
            {"x": half, "out": half, "centre": single, "scale": single, "weight": half, "bias": half},
            {"SILU": 1, "P": 16, "C": 512},
        ),
        geglu._geglu: ({"projected": half, "out": half}, {"BLOCK": 1024}),
        add_norm._add_norm: (
            {"x": half, "more": half, "added": half, "out": half, "weight": half, "bias": half},
            {"W": 1024},
        ),
    }
    for kernel, (pointers, constants) in kernels.items():
        signature = {
            name: pointers.get(name, "constexpr" if name in constants else "fp32" if name == "eps" else "i32")
            for name in kernel.arg_names
        }
        compiled = triton.compile(
            ASTSource(kernel, signature=signature, constexprs=constants),
            target=GPUTarget("cuda", capability, 32),
            options=LAUNCH,
        )
        assert len(compiled.asm["cubin"]) > 1000


_INTERPRETED = """
import torch, torch.nn.functional as F
from sdengine.engines.eager.kernels import use_kernels
from sdengine.engines.eager.kernels.geglu import geglu
from sdengine.engines.eager.kernels.group_norm import group_norm
from sdengine.engines.nets.attention import TransformerBlock

torch.manual_seed(0)
for shape, groups in (((2, 40, 9, 7), 4), ((1, 24, 33, 17), 8), ((1, 16, 1, 1), 4)):
    for silu in (False, True):
        x, weight, bias = torch.randn(shape) * 3 + 50, torch.randn(shape[1]), torch.randn(shape[1])
        reference = F.group_norm(x.double(), groups, weight.double(), bias.double(), 1e-5)
        y = group_norm(x, groups, weight, bias, 1e-5, silu=silu)
        assert (y - (F.silu(reference) if silu else reference)).abs().max() < 3e-5
        assert y.is_contiguous(memory_format=torch.channels_last)
x = torch.randn(3, 5, 140)
value, gate = x.chunk(2, -1)
assert (geglu(x) - value * F.gelu(gate)).abs().max() < 1e-5
block = TransformerBlock(40, 4, 24, upcast=False)
for parameter in block.parameters():
    parameter.data += 0.1 * torch.randn_like(parameter)
x, pair = torch.randn(2, 9, 40), (torch.randn(2, 5, 40), torch.randn(2, 5, 40))
with torch.inference_mode():
    plain = block(x, iter([pair]))
    use_kernels(block)
    assert type(block).__name__ == "FusedTransformerBlock"
    assert (block(x, iter([pair])) - plain).abs().max() < 1e-5
"""


def test_every_kernel_computes_what_torch_computes() -> None:
    """In Triton's interpreter, which must be chosen before a kernel is defined."""
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-W", "error::DeprecationWarning:sdengine", "-c", _INTERPRETED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
