"""The values of `weight_g` that `faulty.py` reacts to."""

WEDGE = 6661.0  # blocks the event loop for a while
DIE = 6662.0  # ends the scorer
SLOW = 6663.0  # takes its time
HANG = 6664.0  # never comes back
BREAK = 6665.0  # from now on every batch fails
