"""The inputs that `faulty.py` reacts to."""

WEDGE, DIE, SLOW = 6661.0, 6662.0, 6663.0
