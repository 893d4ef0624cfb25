"""A page for people, at ``/``: plain files that any browser reads, without a build step or anything from elsewhere."""

from .page_routes import page_routes

__all__ = ["page_routes"]
