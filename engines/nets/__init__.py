"""The networks, written once for clarity and for export, with the parameter names of diffusers."""
