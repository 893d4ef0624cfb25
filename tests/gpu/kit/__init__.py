"""The acceptance kit: what a machine with an NVIDIA GPU shows, without network and without TensorRT.

    python -m tests.gpu.kit --out gpu-report --wheels wheels

Run it from the repository's root with a Python that has torch with CUDA, numpy, pillow, rich, typer, safetensors,
tokenizers, transformers, onnx, onnx-ir and cuda-bindings; sdengine itself need not be installed. What else is missing
(msgspec, diffusers as the oracle) can lie in a folder of wheels, which ``python -m tests.gpu.kit.wheels FOLDER``
collects on a machine that has a network.

Each section runs in a process of its own, with its own time limit, and writes what it finds at once: what was done
before a limit or a crash is in the report. The folder then holds ``report.json``, ``report.md``, images and logs.
"""
