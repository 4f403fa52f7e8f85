"""Compute how much memory a replica can need, from its settings: what a memory limit has to be above.

Where the figures are from: `PROCESS_BYTES` is the RSS under load in docs/performance.md. The others were measured on
two cores of an Intel Xeon with Linux 6.18 and Python 3.11, as the growth of VmRSS of `python -m defects.serve` with the
built-in model: 2,000 connections, each with a request that is being received, 12.7 KiB each (3.2 KiB idle); uploads up
to the bound of 128 MiB, 1.19 bytes for each that is counted; one body while it is decoded, 9 MiB.

Sockets' buffers are not in it: the kernel gives way there, and kills nobody. Neither are answers that callers do not
read. Of bodies that come packed, a few at a time are unpacked.
"""

from __future__ import annotations

from typing import NamedTuple

from defects import simulator
from defects.schema import Schema
from defects.serving.model import all_bodies_bytes, body_bytes
from defects.settings import Settings

PROCESS_BYTES = 127_000_000
CONNECTION_BYTES = 13 * 1024  # while it has a request
CONNECTIONS = 4_096  # that are open at most, where `DEFECTS_MAX_CONNECTIONS` does not say: a guess
BODY_FACTOR = 1.25  # bytes for each byte of a body that is being received, with what the allocator can't use again
DECODED_FACTOR = 10  # bytes for each byte of the one body that is being decoded, with two more that are unpacked
VALUE_BYTES = 8 + 8  # of a row that waits, for each feature: as decoded, and as the model takes it, at most 64 bits
PROBABILITY_BYTES = 8


class MemoryNeed(NamedTuple):
    """What a replica can need, in bytes, by what needs it."""

    process: int
    rows: int
    bodies: int
    decoding: int
    connections: int

    @property
    def total(self) -> int:
        """The sum, in bytes."""
        return sum(self)

    def __str__(self) -> str:
        parts = (f"{value / 1e6:,.0f} MB {name}" for name, value in zip(self._fields, self, strict=True))
        return f"{self.total / 1e6:,.0f} MB ({', '.join(parts)})"


def need(settings: Settings, schema: Schema = simulator.SCHEMA, connections: int = CONNECTIONS) -> MemoryNeed:
    """Return what a replica with these settings and a model of this schema can need at most, in bytes.

    `connections` is how many are open at a time, where the settings have no bound for them.
    """
    row = len(schema.names) * VALUE_BYTES + len(schema.class_names) * PROBABILITY_BYTES
    one = settings.max_body_bytes or body_bytes(schema)
    return MemoryNeed(
        process=PROCESS_BYTES,
        rows=settings.max_queued_rows * row,
        bodies=round(all_bodies_bytes(one, settings.max_bodies_bytes) * BODY_FACTOR),
        decoding=one * DECODED_FACTOR,
        connections=(settings.max_connections or connections) * CONNECTION_BYTES,
    )
