r"""What becomes of a weight: the formulas of the trainers, on float32 arrays.

``W`` is the weight ``[out, in, ...]``, ``m`` the strength, ``s`` the factor that the file asks for: ``alpha / rank``.

=========  ============================================================  ==============================================
kind       difference                                                    from
=========  ============================================================  ==============================================
LoRA       ``m s B A``                                                   Hu et al. 2021, arXiv:2106.09685
Tucker     ``m s`` times the core ``[r, r, kh, kw]`` between B and A     LyCORIS (Yeh et al. 2023, arXiv:2309.14859)
LoHa       ``m s (B1 A1) * (B2 A2)``                                     LyCORIS
LoKr       ``m s kron(w1, w2)``                                          LyCORIS
DoRA       ``m (g V / ||V|| - W)``, ``V = W + dW`` at full strength      Liu et al. 2024, arXiv:2402.09353; LyCORIS
DoRA       ``g V / ||V|| - W``, ``V = W + m dW``                         the same; PEFT, when its spelling is used
full       ``m diff``                                                    LyCORIS
(IA)³      ``m w W``, w per output, or input, channel                    Liu et al. 2022, arXiv:2205.05638; LyCORIS
(IA)³      ``m (l - 1) W``                                               the same; PEFT
=========  ============================================================  ==============================================

LyCORIS itself scales only the norm by m and leaves ``dW`` whole, so that m = 0 would still change the weight; the rule
here, ComfyUI's and AUTOMATIC1111's, agrees with it at m = 1 and is W at m = 0.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["decomposed", "decomposed_as_peft", "kronecker", "low_rank", "magnitude_by_input", "tucker"]

F32 = NDArray[np.float32]


def low_rank(a: F32, b: F32, core: F32 | None = None) -> F32:
    """``a b`` ``[rows, columns]``; or with a core ``[r, r, kh, kw]`` between ``a`` ``[r, p]`` and ``b`` ``[r, q]``."""
    if core is not None:
        return tucker(core, a, b)
    product: F32 = _matrix(a) @ _matrix(b)
    return product


def tucker(core: F32, a: F32, b: F32) -> F32:
    """``sum_ij core[i, j, ...] a[i, p] b[j, q]`` -> ``[p, q, ...]``."""
    product: F32 = np.einsum("ij...,ip,jq->pq...", core, a, b, optimize=True)
    return product


def kronecker(left: F32, right: F32) -> F32:
    """LoKr's product; ``left`` is a matrix, ``right`` may be a convolution's weight."""
    return np.kron(left.reshape(*left.shape, *(1 for _ in right.shape[2:])), right)


def decomposed(weight: F32, full: F32, magnitude: F32, strength: float) -> F32:
    """DoRA as LyCORIS trains it.

    Args:
        weight: W.
        full: dW, of its shape.
        magnitude: g, ``[out, 1, ...]``, or of older releases ``[1, in, ...]``: the norm is over the other axes.
        strength: m.

    """
    direction = weight + full
    norm = _norm(direction, 1 if magnitude_by_input(magnitude.shape) else 0) + np.finfo(np.float32).eps
    return np.float32(strength) * (direction * (magnitude.reshape(norm.shape) / norm) - weight)


def magnitude_by_input(shape: tuple[int, ...]) -> bool:
    """Whether a magnitude of this shape has one number for each input channel, ``[1, in, ...]``."""
    return shape[:1] == (1,) and shape[1:2] not in ((), (1,))


def decomposed_as_peft(weight: F32, scaled: F32, magnitude: F32) -> F32:
    """DoRA as PEFT has it; ``scaled`` is m dW, ``magnitude`` one number for each output."""
    direction = weight + scaled
    norm = _norm(direction, 0)
    return direction * (magnitude.reshape(norm.shape) / norm) - weight


def _matrix(factor: F32) -> F32:
    return factor.reshape(len(factor), -1)


def _norm(weight: F32, axis: int) -> F32:
    """Norms over all axes but one, shaped to divide the weight."""
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    shape = [1] * weight.ndim
    shape[axis] = weight.shape[axis]
    norms: F32 = np.sqrt(squares).astype(np.float32).reshape(shape)
    return norms
