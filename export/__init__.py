"""Checkpoint -> bundle: offline work that needs torch."""
