"""``sdengine debug``: which layer of a compiled component departs first from a reference that computes in float32.

Built on Polygraphy: its runners, its comparator, its files. The names of layers are those of the component's plain
graph, the one that is traced and that plans are built from. :func:`.find.find_departure` is where to start reading;
nothing is imported here, as the command line imports :mod:`.command` for its help.
"""
