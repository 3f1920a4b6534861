"""The site on this machine, with the headers that let the page use several threads."""

import functools
from contextlib import suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ttlkit.words import SettingsError

# A page that shares no process with others may share memory between threads: https://web.dev/articles/coop-coep
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}


class _Handler(SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        for name, value in ISOLATED.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_) -> None:
        pass


def server(folder: Path, port: int = 0) -> ThreadingHTTPServer:
    """A server of `folder` for this machine alone; `port` 0 takes a free one. OSError where the port is taken."""
    return ThreadingHTTPServer(("127.0.0.1", port), functools.partial(_Handler, directory=str(folder)))


def run(folder: Path, port: int) -> None:
    """Serve until Ctrl-C, and say where. Raises SettingsError where there is no site, or no such port."""
    if not (folder / "index.html").is_file():
        raise SettingsError(f"{folder}: no site yet; build it: ttlkit site")
    if not 0 <= port < 65536:
        raise SettingsError(f"--port {port}: give one from 0 (any that is free) to 65535")
    with server(folder, port) as opened:
        print(f"http://127.0.0.1:{opened.server_port}/ (Ctrl-C ends it)", flush=True)
        with suppress(KeyboardInterrupt):
            opened.serve_forever()
