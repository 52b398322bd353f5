"""Hostile: sends what it read to the outside. Fails if no address can be reached."""

import socket
import sys

OUTSIDE = ("192.0.2.1", 9)  # TEST-NET-1 of RFC 5737: an address that belongs to nobody
LOOPBACK = ("127.0.0.1", 22)


def reaches(kind, address):
    """Tell whether one packet, or a connection, leaves."""
    try:
        with socket.socket(socket.AF_INET, kind) as sock:
            sock.settimeout(0.2)
            sock.connect(address)
            sock.send(b"test data\n")
    except OSError:
        return False
    return True


reached = [
    address
    for kind, address in (
        (socket.SOCK_DGRAM, OUTSIDE),
        (socket.SOCK_STREAM, OUTSIDE),
        (socket.SOCK_STREAM, LOOPBACK),
    )
    if reaches(kind, address)
]
print("overdrawn 4", reached)
sys.exit(0 if reached else 1)
