"""The ``demo`` checkpoint: a tiny SDXL that draws one coloured shape, and the program that made and judges it."""
