"""From latents to images and image files."""
