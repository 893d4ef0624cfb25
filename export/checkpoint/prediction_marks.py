"""What a single file says about the prediction of its network, and about the noise that it was trained with.

diffusers' ``from_single_file`` reads none of it; the marks are those of the programs that write such files:

- tensors ``v_pred`` and ``ztsnr``, ``edm_vpred.sigma_max`` and ``.sigma_min`` (ComfyUI, CosXL);
- ``modelspec.prediction_type`` (Stability's ModelSpec), ``ss_v_parameterization`` and ``ss_zero_terminal_snr``
  (kohya's sd-scripts) in the metadata, in any of their spellings;
- the table ``alphas_cumprod`` or its root, which ends in 0 where noise was all there was.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...engines.errors import CheckpointError
from .tensor import TensorSource

__all__ = ["Marks", "read_marks"]

_Stored = Mapping[str, TensorSource]

_SPELLINGS = {
    "v_prediction": {"v", "vpred", "vprediction", "velocity", "vparameterization"},
    "epsilon": {"epsilon", "eps", "noise"},
    "sample": {"sample", "x0", "x"},
}
_PREDICTION_KEYS = ("prediction_type", "parameterization")
_V_KEYS = ("v_parameterization", "v_prediction", "v_pred")
_ZERO_KEYS = ("zero_terminal_snr", "ztsnr", "zsnr", "rescale_betas_zero_snr")
_YES, _NO = {"true", "1", "yes", "on"}, {"false", "0", "no", "off", "none", ""}
_PREFIXES = ("modelspec.", "ss_")
_EDM = "edm_vpred."
_NOTHING = 1e-6  # the last value of Stable Diffusion's own table is 0.0047; where a zero is avoided, it is 5e-8


@dataclass(frozen=True, kw_only=True)
class Marks:
    """What the file says.

    Attributes:
        prediction: ``epsilon``, ``v_prediction`` or ``sample``, or None where it says nothing.
        zero_snr: whether its noise schedule ends at a signal-to-noise ratio of zero.
        sigmas: lowest and highest noise level of an EDM network that predicts v, or None.
        notes: where the file says so, and what contradicts it.

    """

    prediction: str | None
    zero_snr: bool
    sigmas: tuple[float, float] | None
    notes: tuple[str, ...]


def read_marks(stored: _Stored, facts: Mapping[str, object], requested: str | None) -> Marks:
    """Read the marks of a file.

    Args:
        stored: its tensors.
        facts: its metadata.
        requested: the user's prediction type, which takes precedence over the file's.

    Raises:
        CheckpointError: it was trained in a way that is not supported.

    """
    sigmas = _edm(stored)
    claims, notes = _predictions(stored, facts)
    zero, full = _zero_snr(stored, facts)
    if sigmas is not None:
        claims.insert(0, (f"the tensor {_EDM}sigma_max", "v_prediction"))
    if zero and not claims:
        claims.append((f"{zero[0]} (noise without any signal, of which only v can be predicted)", "v_prediction"))
    prediction = requested or (claims[0][1] if claims else None)
    if requested is None and claims:
        notes.append(f"the prediction type is {prediction}: so says {claims[0][0]}")
    against = [f"{mark} says {value}" for mark, value in claims if value != prediction]
    if against:
        notes.append(
            f"the file contradicts {'--prediction-type' if requested else 'itself'}: {'; '.join(against)}; "
            f"it is taken as {prediction} ({'as asked' if requested else claims[0][0]})"
            + ("" if requested else "; --prediction-type decides")
        )
    rescaled = bool(zero) and prediction != "epsilon" and sigmas is None
    if zero and full:
        notes.append(f"the file contradicts itself: {zero[0]} says that its noise ends at zero SNR, {full[0]} does not")
    if rescaled:
        notes.append(f"the noise schedule ends at a signal-to-noise ratio of zero: so says {zero[0]}")
    elif zero and sigmas is None:
        notes.append(f"{zero[0]} says that its noise ends at zero SNR, which no prediction of epsilon can: left aside")
    return Marks(prediction=prediction, zero_snr=rescaled, sigmas=sigmas, notes=tuple(notes))


def _edm(stored: _Stored) -> tuple[float, float] | None:
    names = sorted(name for name in stored if name.startswith("edm_"))
    if not names:
        return None
    if not any(name.startswith(_EDM) for name in names):
        raise CheckpointError(
            f"it was trained in the EDM formulation of Playground 2.5 ({', '.join(names)}), which is not supported"
        )
    low, high = (
        float(np.ravel(stored[name].read())[0]) if name in stored and stored[name].nbytes else usual
        for name, usual in ((f"{_EDM}sigma_min", 0.002), (f"{_EDM}sigma_max", 120.0))
    )
    if not 0 < low < high < float("inf"):
        raise CheckpointError(f"its {_EDM}sigma_min and sigma_max are {low:g} and {high:g}")
    return low, high


def _predictions(stored: _Stored, facts: Mapping[str, object]) -> tuple[list[tuple[str, str]], list[str]]:
    """Return every mark and the prediction type it claims, the most reliable first, and notes."""
    claims, notes = [], []
    if "v_pred" in stored:
        claims.append(("the tensor v_pred", "v_prediction"))
    for name, value in _named(facts, _PREDICTION_KEYS):
        plain = str(value).strip().lower().replace("-", "").replace("_", "").replace(" ", "")
        kind = next((kind for kind, spellings in _SPELLINGS.items() if plain in spellings), None)
        if kind:
            claims.append((f"the metadata {name}={value}", kind))
        elif plain not in ("", "none"):
            notes.append(f"the metadata {name}={value} names no known prediction type and is left aside")
    for name, value in _named(facts, _V_KEYS):
        truth = _truth(value)
        if truth is not None:
            claims.append((f"the metadata {name}={value}", "v_prediction" if truth else "epsilon"))
    return claims, notes


def _zero_snr(stored: _Stored, facts: Mapping[str, object]) -> tuple[list[str], list[str]]:
    """Return the marks that claim it, and those that deny it."""
    zero: list[str] = []
    full: list[str] = []
    if "ztsnr" in stored:
        zero.append("the tensor ztsnr")
    for name, value in _named(facts, _ZERO_KEYS):
        truth = _truth(value)
        if truth is not None:
            (zero if truth else full).append(f"the metadata {name}={value}")
    for name in ("alphas_cumprod", "sqrt_alphas_cumprod"):
        last = _last(stored.get(name))
        if last is not None:
            (zero if last < _NOTHING else full).append(f"the table {name}, which ends in {last:g},")
    return zero, full


def _last(table: TensorSource | None) -> float | None:
    """Return the last value of a table that falls from a clean image to noise."""
    if table is None or len(table.shape) != 1 or table.shape[0] < 2:
        return None
    values = table.read()
    first, last = float(values[0]), float(values[-1])
    return last if 0.5 < first <= 1 and 0 <= last < first else None


def _named(facts: Mapping[str, object], keys: tuple[str, ...]) -> list[tuple[str, object]]:
    """Return the facts of these names, ModelSpec's before kohya's before those without a prefix."""
    names = [f"{prefix}{key}" for prefix in (*_PREFIXES, "") for key in keys]
    known = {name.lower(): name for name in facts}
    return [(known[name], facts[known[name]]) for name in names if name in known]


def _truth(value: object) -> bool | None:
    plain = str(value).strip().lower()
    return True if plain in _YES else False if plain in _NO else None
