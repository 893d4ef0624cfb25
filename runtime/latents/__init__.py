"""Where denoising starts: noise of a seed, a noised image, or latents of the caller."""
