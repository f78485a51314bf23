"""Runs inside the cage: gives a program a port on the loopback that leads to the one socket it may speak through.

`python forward.py SOCKET PORT PROGRAM ARGUMENT...`; it needs the standard library alone, and ends as the program does.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Carry bytes one way until there are no more."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def serve(listener: socket.socket, path: str) -> None:
    """Connect whoever comes."""
    while True:
        client, _ = listener.accept()
        model = socket.socket(socket.AF_UNIX)
        try:
            model.connect(path)
        except OSError:
            client.close()
            continue
        for pair in ((client, model), (model, client)):
            threading.Thread(target=pump, args=pair, daemon=True).start()


def main() -> int:
    """Run the program and return its exit code."""
    path, port, *command = sys.argv[1:]
    listener = socket.create_server(("127.0.0.1", int(port)))
    threading.Thread(target=serve, args=(listener, path), daemon=True).start()
    code = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
