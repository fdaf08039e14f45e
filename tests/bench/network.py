"""The network that a benchmark runs in: the loopback interface of a namespace of its own, the same on every machine.

All traffic of a benchmark goes over loopback, whose cost is the machine's doing and not that of what is measured: a packet filter that tracks
connections (Docker leaves one behind) looks at each packet there, too, and a congestion control that paces, such as BBR, sets timers for what
arrives at once. Who is not root, or runs where namespaces are not allowed, gets the machine's own, and the report says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path

_CLONE_NEWNET = 0x40000000  # sched.h
_SIOCSIFFLAGS = 0x8914  # netdevice(7)
_IFF_UP = 0x1
_CONTROL = Path("/proc/sys/net/ipv4/tcp_congestion_control")
_PLAIN = "reno"  # every kernel has it, and lets it be chosen in a namespace


def enter_network(*, own: bool = True) -> str:
    """Go on in a network of our own (this process, and all that it starts from now on), unless not `own`; what it is, as a phrase for the report.

    To be called before there is a thread or a socket, and after the last thing that needs the world.
    """
    if not own:
        return f"the machine's network, {_control()}"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        return f"the machine's network ({os.strerror(ctypes.get_errno())} for one of its own), {_control()}"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
    with contextlib.suppress(OSError):  # in a container /proc/sys may be read-only
        _CONTROL.write_text(_PLAIN)
    return f"a network namespace of its own, {_control()}"


def _control() -> str:
    return _CONTROL.read_text().strip()
