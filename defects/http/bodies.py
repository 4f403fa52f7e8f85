"""The bodies that are being received: what all of them together may hold.

Bodies that come in one piece with their head are not counted: they are decoded at once, so one of them is held at a
time.
"""

from __future__ import annotations

from defects.serving.batching import Overloaded


class Bodies:
    """What all bodies that are being received hold, in bytes; at most `most`."""

    def __init__(self, most: int):
        self.most, self.held = most, 0

    def share(self, declared: int) -> BodyShare:
        """Return the share of a body of `declared` bytes, empty as yet; raises `Overloaded` if there is no room."""
        share = BodyShare(self)
        share.check(declared)
        return share


class BodyShare:
    """What one body holds, until it is released."""

    __slots__ = ("_bodies", "_size")

    def __init__(self, bodies: Bodies):
        self._bodies, self._size = bodies, 0

    def check(self, more: int) -> None:
        """Raise `Overloaded` where there is no room for so many bytes more."""
        if self._bodies.held + more > self._bodies.most:
            raise Overloaded("bodies", 1)

    def grow(self, size: int) -> None:
        """Add bytes that came; raises `Overloaded` where there is no room for them."""
        self.check(size)
        self._size += size
        self._bodies.held += size

    def release(self) -> None:
        """Give everything back; may be called again."""
        self._bodies.held -= self._size
        self._size = 0
