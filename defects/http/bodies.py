"""The bodies that are being received: what all of them together may hold.

Bodies that come in one piece with their head are not counted: they are decoded at once, so one of them is held at a
time. There is always room for a small one: of these there are at most as many as connections. A packed body counts as
it came; a few at a time are unpacked, and then decoded at once too.
"""

from __future__ import annotations

import asyncio

from defects.serving.batching import Overloaded

SMALL_BYTES = 8_192
UNPACKED = 2  # bodies at a time: one is unpacked in a thread while another one is decoded


class Bodies:
    """What all bodies that are being received hold, in bytes; at most `most`."""

    def __init__(self, most: int):
        self.most, self.held = most, 0
        self.unpacking = asyncio.Semaphore(UNPACKED)

    def share(self, declared: int) -> BodyShare:
        """Return the share of a body of `declared` bytes, empty as yet; raises `Overloaded` if there is no room."""
        share = BodyShare(self, small=0 < declared <= SMALL_BYTES)
        share.check(declared)
        return share


class BodyShare:
    """What one body holds, until it is released."""

    __slots__ = ("_bodies", "_size", "_small")

    def __init__(self, bodies: Bodies, *, small: bool):
        self._bodies, self._small, self._size = bodies, small, 0

    def check(self, more: int) -> None:
        """Raise `Overloaded` where there is no room for so many bytes more."""
        if self._bodies.held + more > self._bodies.most and not self._small:
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
