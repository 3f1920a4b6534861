"""What every test gets: no network, few threads, figures without a screen; and the shared fixtures."""

import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest

# Set before numpy and torch are imported; the kernels and commands that tests start inherit all of it.
os.environ["MPLBACKEND"] = "Agg"
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "2")  # waiting OpenMP threads spin: more than the cores makes all crawl

REPO = Path(__file__).resolve().parents[1]
CLOSED_PORT = "http://127.0.0.1:9"  # nothing listens on the discard port


class NetworkBlocked(RuntimeError):
    """A test reached for the network; not an OSError, which code with several mirrors would swallow."""


def _refuse(host):
    raise NetworkBlocked(f"tests run without network, but something asked for {host!r}")


def _is_local(host):
    host = host.decode() if isinstance(host, bytes) else host
    return host in (None, "", "localhost", "::1", "0.0.0.0", "::") or host.startswith("127.")


@pytest.fixture(scope="session", autouse=True)
def no_network():
    """Sockets of this process reach loopback only; child processes find every proxy closed.

    Children (notebook kernels, pip, git, the command line) are held by environment variables alone, which
    urllib, requests, gdown, pip and git obey; a child that opens a raw socket is not held.
    """
    connect, connect_ex, resolve = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded(method):
        def call(self, address):
            if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address[0]):
                _refuse(address[0])
            return method(self, address)

        return call

    def guarded_resolve(host, *args, **kwargs):
        return resolve(host, *args, **kwargs) if _is_local(host) else _refuse(host)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded(connect))
        patch.setattr(socket.socket, "connect_ex", guarded(connect_ex))
        patch.setattr(socket, "getaddrinfo", guarded_resolve)
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            patch.setenv(name, CLOSED_PORT)
            patch.setenv(name.lower(), CLOSED_PORT)
        for name in ("NO_PROXY", "no_proxy"):
            patch.setenv(name, "localhost,127.0.0.1,::1")
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    """Decoded images go to a folder of the session, in this process and in those that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTLKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty folder that stands for the checkout: datasets/ and outputs/ are made in it."""
    monkeypatch.setenv("TTLKIT_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real images beside the repository, or $TTLKIT_SHARED_DATA; skips where there is none."""
    folder = Path(os.environ.get("TTLKIT_SHARED_DATA") or REPO.parent / "shared" / "data")
    if not (folder / "collection").is_dir():
        pytest.skip(f"no image data in {folder} (set TTLKIT_SHARED_DATA to use another folder)")
    return folder


@pytest.fixture
def ordinary_user():
    """A folder of an ordinary user, and no more rights than that user's: root may write anywhere."""
    folder = Path(tempfile.mkdtemp())
    as_root = os.geteuid() == 0
    if as_root:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    yield folder
    if as_root:
        os.seteuid(0)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o700)
    shutil.rmtree(folder)
