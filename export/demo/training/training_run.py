"""What both trainings share: the learning rate, the running average of the weights, and a state that resumes exactly.

All randomness of a step follows from the seed and the step's number, so a state needs no generators in it, and a
run that was killed goes on as if nothing had happened.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import nn

__all__ = ["Average", "Plan", "learning_rate", "log", "run", "seed_step"]

log = logging.getLogger("sdengine.export.demo")


class Plan:
    """How long to train: ``steps`` in all, warmed up at the start and annealed to nothing over the last ``decay``.

    Between the two the rate is constant, so a run may be resumed with another length as long as it has not begun
    to anneal: what was trained before does not depend on when the end was meant to come.
    """

    def __init__(
        self, *, steps: int, decay: int, peak: float, seed: int, warmup: int = 100, save_every: int = 200
    ) -> None:
        if not 0 <= decay <= steps:
            raise ValueError(f"the last {decay} of {steps} steps cannot be annealed: decay must be 0 to {steps}")
        self.steps, self.decay, self.peak, self.seed = steps, decay, peak, seed
        self.warmup, self.save_every = warmup, save_every


def learning_rate(plan: Plan, step: int) -> float:
    """Return the rate of a step: linear warm-up, constant, linear to zero."""
    rising = min(1.0, (step + 1) / plan.warmup) if plan.warmup else 1.0
    falling = min(1.0, (plan.steps - step) / plan.decay) if plan.decay else 1.0
    return plan.peak * min(rising, falling)


def seed_step(seed: int, step: int) -> None:
    """Make every torch number drawn in this step a function of (seed, step)."""
    torch.manual_seed(seed * 1_000_003 + step)


class Average:
    """Exponential running average of a network's weights; its horizon grows with the steps until ``decay`` holds."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def follow(self, network: nn.Module, step: int) -> None:
        """Take one step towards the network's present weights."""
        keep = min(self.decay, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value, 1 - keep)


def run(
    network: nn.Module,
    plan: Plan,
    loss_of_step: Callable[[int], torch.Tensor],
    state_file: Path,
    *,
    average_decay: float,
    betas: tuple[float, float] = (0.9, 0.99),
    after_save: Callable[[int, Average], None] | None = None,
) -> Average:
    """Train ``network`` to the end of the plan, from ``state_file`` if there is one, and return the average weights.

    ``loss_of_step`` draws what it needs from torch's generator, which has been seeded for the step. The state
    is replaced atomically every ``plan.save_every`` steps and at the end.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=plan.peak, betas=betas, weight_decay=0.01)
    average = Average(network, average_decay)
    first = _restore(state_file, network, optimizer, average) if state_file.exists() else 0
    began, recent = time.monotonic(), torch.zeros(())
    for step in range(first, plan.steps):
        seed_step(plan.seed, step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(plan, step)
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of_step(step)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average.follow(network, step)
        recent = loss.detach() if step == first else recent.lerp(loss.detach(), 0.05)
        done = step + 1
        if done % 50 == 0:
            rate = (time.monotonic() - began) / (done - first)
            log.info("step %d/%d  loss %.4f  %.3f s per step", done, plan.steps, float(recent), rate)
        if done % plan.save_every == 0 or done == plan.steps:
            _save(state_file, done, network, optimizer, average)
            if after_save is not None:
                after_save(done, average)
    return average


def _save(file: Path, step: int, network: nn.Module, optimizer: torch.optim.Optimizer, average: Average) -> None:
    aside = file.with_suffix(".part")
    state = {"step": step, "network": network.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save({**state, "average": average.weights}, aside)
    os.replace(aside, file)


def _restore(file: Path, network: nn.Module, optimizer: torch.optim.Optimizer, average: Average) -> int:
    state = torch.load(file, weights_only=True)
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    average.weights = state["average"]
    log.info("resumed %s at step %d", file.name, state["step"])
    return int(state["step"])


def trainable(network: nn.Module, parts: Iterable[str]) -> None:
    """Let only those parameters learn whose names begin with one of ``parts``."""
    chosen = tuple(parts)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(chosen))
