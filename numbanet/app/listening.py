"""Addresses for a page: a host that is this machine, and a free port."""

import errno
import socket

import numpy as np

from numbanet.app.errors import UsageError
from numbanet.shown import shown

HOST, PORT = "127.0.0.1", 8080
MOST_PORTS = 1000  # that are tried


def check_place(host: str, port: int) -> None:
    """Raise UsageError unless a page can be served at the address."""
    if not isinstance(host, str) or not host:  # "" would be every address of this machine
        raise UsageError(f"view host: {shown(host)} is not allowed; use {HOST}, or 0.0.0.0 for all")
    is_integer = isinstance(port, (int, np.integer)) and not isinstance(port, bool)
    if not (is_integer and 0 < port < 1 << 16):
        raise UsageError(f"view port: {shown(port)} is not allowed; use 1 to 65535")


def free_port(host: str, first: int) -> int:
    """First free port, from `first` on, at all of a host's addresses.

    Raises:
        OSError: the host has no address, not one of this machine, or no port is free.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError as error:  # a name that cannot even be asked for
        raise OSError("no host can have this name") from error
    for port in range(first, min(first + MOST_PORTS, 1 << 16)):
        try:
            for family, _, _, _, (address, _, *more) in found:
                with socket.socket(family, socket.SOCK_STREAM) as one:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
                    if family == socket.AF_INET6:
                        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, True)
                    one.bind((address, port, *more))
                    one.listen()
            return port
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRINUSE, f"no port from {first} on is free")
