"""An NVIDIA GPU through CUDA's driver API: memory, one stream, captured launches. Shared by all engines on it."""
