"""What a config file of Ray Serve imports: ``sdengine.runtime.serve.cluster.ray_app:build``."""

from .deployment import application as build

__all__ = ["build"]
