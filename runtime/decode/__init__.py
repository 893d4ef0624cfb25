"""From latents to image files."""
