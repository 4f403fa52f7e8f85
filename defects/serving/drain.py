"""Close a listener without losing a connection that the kernel has accepted."""

from __future__ import annotations

import ctypes
import socket
import struct
from contextlib import suppress

SO_ATTACH_FILTER = 26  # Linux's; the socket module does not name it


def _accepted(listener: socket.socket) -> list[socket.socket]:
    """The connections that wait to be accepted."""
    listener.setblocking(False)
    found = []
    with suppress(BlockingIOError):
        while True:
            found.append(listener.accept()[0])
    return found


def _ignore_new(listener: socket.socket) -> None:
    """Drop packets that would begin a connection; their senders try again a second later, and are refused then."""
    # Classic BPF: load byte 13 of the TCP header; where SYN is set, drop the packet, else let all of it pass.
    program = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    with suppress(OSError):  # not on this kernel, or not for this user
        option = struct.pack("HL", len(program), ctypes.addressof(code))
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, option)
