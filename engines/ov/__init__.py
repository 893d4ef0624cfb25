"""OpenVINO on CPUs: how a graph is rewritten and compiled for it."""
