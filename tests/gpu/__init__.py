"""The acceptance suite for machines with an NVIDIA GPU: ``make gpu``, or ``pytest -m gpu``.

Without a GPU it is skipped. The parts that can then run on a stand-in for the CUDA driver, so that the suite itself is
tested: see ``test_on_standin.py`` in ``tests/engines/trt``.
"""
