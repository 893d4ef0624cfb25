"""The latents that denoising starts from: noise of a seed, a noised image, or the caller's latents."""
