"""The ``demo`` checkpoint: a tiny SDXL that draws one coloured shape."""
