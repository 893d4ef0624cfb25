"""Request -> image: lean, never imports torch, transformers, onnx or diffusers."""
