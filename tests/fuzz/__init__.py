"""Hostile bytes against clients and servers: `python -m tests.fuzz --seconds 600 --seed 7`.

Recordings of what a peer may rightly say are split at every offset, and mutated in every way that comes to mind.
Whatever comes of it, it must be what is documented: an error of ours or a message, soon, in bounded memory, with
nothing left behind; and the same wherever the bytes were split, and over whichever library.
"""
