"""A bundle on disk: its manifest and hashes, files written whole or not at all, and the cache of compiled models."""
