from .runs import measured

__all__ = ["measured"]
