"""What is trained is what diffusers loads: same names, same numbers, gradients everywhere."""

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from sdengine.export.demo.training.demo_networks import UNET, VAE, new_unet, new_vae


def test_unet() -> None:
    torch.manual_seed(0)
    theirs = UNet2DConditionModel(**UNET)
    ours = new_unet()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    noisy, t, text = torch.randn(2, 4, 12, 16), torch.tensor([3.0, 900.0]), torch.randn(2, 9, 112)
    conditions = {"text_embeds": torch.randn(2, 64), "time_ids": torch.tensor([[128, 128, 0, 9, 128, 96]] * 2)}
    expected = theirs(noisy, t, encoder_hidden_states=text, added_cond_kwargs=conditions).sample
    actual = ours(noisy, t, encoder_hidden_states=text, added_cond_kwargs=conditions).sample
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=1e-4)
    actual.square().mean().backward()
    assert [n for n, p in ours.named_parameters() if p.grad is None] == []


def test_vae() -> None:
    torch.manual_seed(0)
    theirs, ours = AutoencoderKL(**VAE), new_vae()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    pixels, code = torch.rand(2, 3, 64, 48) * 2 - 1, torch.randn(2, 4, 8, 6)
    expected, actual = theirs.encode(pixels).latent_dist, ours.encode(pixels).latent_dist
    for name in ("mean", "logvar", "std", "var"):
        torch.testing.assert_close(getattr(actual, name), getattr(expected, name), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(ours.decode(code).sample, theirs.decode(code).sample, atol=2e-5, rtol=1e-4)
