from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from sdengine.export.demo.training import train, train_vae
from sdengine.export.demo.training.demo_networks import VAE, new_vae
from sdengine.export.demo.training.judge import read_checkpoint
from sdengine.export.demo.training.latent_data import Latents
from sdengine.export.demo.training.painter import signal_share
from sdengine.export.demo.training.train_unet import train_painter
from sdengine.export.demo.training.training_run import Plan, learning_rate, run
from sdengine.export.demo.training.vae_start import start_near_identity

Weights = dict[str, torch.Tensor]

EMPTY = torch.tensor([[606, *[607] * 76]])


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def plan(steps: int, **changes: Any) -> Plan:
    return Plan(**{"steps": steps, "decay": 0, "peak": 1e-3, "seed": 4, "warmup": 2, "save_every": 2, **changes})


def test_the_rate_rises_stays_and_falls_to_nothing() -> None:
    rates = [learning_rate(plan(10, decay=5, peak=1.0), step) for step in range(10)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])


def test_a_plan_cannot_anneal_longer_than_it_lasts() -> None:
    with pytest.raises(ValueError, match="last 11 of 10 steps"):
        plan(10, decay=11)


def weights_after(folder: Path, stops: list[int]) -> tuple[Weights, Weights]:
    """Train a small network to each of the given steps in turn, every time from the saved state."""
    for steps in stops:
        torch.manual_seed(99)
        network = torch.nn.Linear(3, 1)

        def loss(step: int, network: torch.nn.Module = network) -> torch.Tensor:
            return torch.as_tensor(network(torch.randn(8, 3)).square().mean())

        average = run(network, plan(steps), loss, folder / "state", average_decay=0.9)
    return network.state_dict(), average.weights


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    (tmp_path / "once").mkdir()
    (tmp_path / "twice").mkdir()
    whole, resumed = weights_after(tmp_path / "once", [7]), weights_after(tmp_path / "twice", [3, 4, 7])
    for expected, found in zip(whole, resumed, strict=True):
        assert all(torch.equal(expected[name], found[name]) for name in expected)
    other = weights_after(tmp_path / "once", [8])
    assert not torch.equal(other[0]["weight"], whole[0]["weight"])


def random_latents() -> Latents:
    torch.manual_seed(0)
    tokens = torch.randint(0, 606, (6, 77))
    tokens[:, 9:] = 607
    examples = {
        "mean": torch.randn(6, 4, 16, 16),
        "deviation": torch.rand(6, 4, 16, 16),
        "tokens": tokens,
        "tokens_2": tokens,
        "time_ids": torch.randint(0, 128, (6, 6)),
    }
    return Latents({(128, 128): examples})


def test_the_painter_learns_and_resumes_exactly(tmp_path: Path) -> None:
    def trained(name: str, *stops: int) -> Weights:
        (tmp_path / name).mkdir(exist_ok=True)
        for steps in stops:
            painter = train_painter(
                random_latents(), (EMPTY, EMPTY), tmp_path / name, plan(steps), vocabulary=608, batch=2
            )
        return painter.state_dict()

    whole, resumed = trained("once", 4), trained("twice", 2, 4)
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    begun = trained("begun", 1)
    moved = {name.split(".")[0] for name, value in whole.items() if not torch.equal(value, begun[name])}
    assert moved == {"unet", "text_encoder", "text_encoder_2"}


def test_time_steps_are_those_of_sdxl() -> None:
    share = signal_share()
    assert len(share) == 1000
    assert float(((1 - share[-1]) / share[-1]).sqrt()) == pytest.approx(14.6146, abs=1e-3)  # SDXL's largest sigma


def test_the_autoencoder_starts_as_one_that_passes_colours() -> None:
    torch.manual_seed(0)
    vae, pictures = new_vae(), train_vae.pictures(range(4))
    with torch.no_grad():
        before = (vae.decode(vae.encode(pictures).latent_dist.mean).sample - pictures).abs().mean()
        start_near_identity(vae)
        after = (vae.decode(vae.encode(pictures).latent_dist.mean).sample - pictures).abs().mean()
    assert after < 0.12 < 0.4 < before


def test_the_code_gets_unit_variance_and_the_picture_stays() -> None:
    torch.manual_seed(0)
    vae, pictures = new_vae(), train_vae.pictures(range(4))
    start_near_identity(vae)
    with torch.no_grad():
        before = vae.encode(pictures).latent_dist
        wanted = vae.decode(before.mean).sample
        train_vae.unit_code(vae, pictures)
        code = vae.encode(pictures).latent_dist
        assert torch.allclose(vae.decode(code.mean).sample, wanted, atol=1e-4)
    scaled = code.mean * VAE["scaling_factor"]
    assert scaled.mean((0, 2, 3)).numpy() == pytest.approx(np.zeros(4), abs=1e-4)
    assert scaled.std((0, 2, 3)).numpy() == pytest.approx(np.ones(4), abs=1e-3)
    assert torch.allclose(code.std / code.mean.std((0, 2, 3))[:, None, None],
                          before.std / before.mean.std((0, 2, 3))[:, None, None], rtol=1e-3)  # fmt: skip


def test_the_autoencoder_learns_and_resumes_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_BATCH", "_MEASURED", "_JUDGED"):
        monkeypatch.setattr(train_vae, name, 2)
    joint, decoder = plan(4, decay=2), plan(2, decay=1)
    vae = train_vae.train_vae(tmp_path, joint=joint, decoder=decoder)
    again = train_vae.train_vae(tmp_path, joint=joint, decoder=decoder)  # from the states alone
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in vae.state_dict().items())
    assert {path.name for path in tmp_path.iterdir()} == {"vae.state", "vae_decoder.state"}


def test_the_whole_training_writes_a_checkpoint_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_BATCH", "_MEASURED", "_JUDGED"):
        monkeypatch.setattr(train_vae, name, 2)
    sizes = {"vae-steps": 1, "vae-decay": 0, "decoder-steps": 1, "pictures": 4, "other-pictures": 2, "steps": 2}
    rest = {"decay": 1, "batch": 2, "look-at": 0, "threads": 1}
    train.main(["--work", str(tmp_path), *(f"--{name}={value}" for name, value in {**sizes, **rest}.items())])
    painter, vae, tokenizers = read_checkpoint(tmp_path / "checkpoint")
    with safe_open(tmp_path / "checkpoint" / "text_encoder" / "model.safetensors", "pt") as stored:
        assert all(name.startswith("text_model.") for name in stored.keys())  # noqa: SIM118 - the file is no mapping
    assert len(tokenizers[0]) == painter.text_encoder.config.vocab_size
    assert all(torch.isfinite(value).all() for value in (*painter.state_dict().values(), *vae.state_dict().values()))
