"""ONNX Runtime, on CPUs and on NVIDIA GPUs."""

import os

# The library's packages since 1.31 send usage data over the network, and write a file into the temporary folder. They
# read this when they are imported; ``disable_telemetry_events`` comes too late.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
