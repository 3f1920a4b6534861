"""What every test gets: no network, few threads, figures without a screen; and the shared fixtures."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from filelock import FileLock

# Set before numpy and torch are imported; the kernels and commands that tests start inherit all of it.
os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as ttlkit does, but many a test imports torch before it
sys.modules.setdefault("rfc3987_syntax", None)  # nbformat's checker of addresses builds grammars for 1.4 s
UNDER_XDIST = "PYTEST_XDIST_WORKER" in os.environ
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1" if UNDER_XDIST else "2")  # `make test` has a worker for each of two cores

REPO = Path(__file__).resolve().parents[1]
CLOSED_PORT = "http://127.0.0.1:9"  # nothing listens on the discard port


class NetworkBlocked(RuntimeError):
    """A test reached for the network; not an OSError, which code with several mirrors would swallow."""


def _refuse(host):
    raise NetworkBlocked(f"tests run without network, but something asked for {host!r}")


def _is_local(host):
    host = host.decode() if isinstance(host, bytes) else host
    return host in (None, "", "localhost", "::1", "0.0.0.0", "::") or host.startswith("127.")


@pytest.hookimpl(tryfirst=True)  # before -m looks at the marks
def pytest_collection_modifyitems(items):
    """Tests that need the chain are slow. Under xdist, whose workers take whole files, long files start first.

    The first is one that makes the chain; others that need it come when it is there.
    """
    chained = {item.path for item in items if "chain" in item.fixturenames}
    for item in items:
        if "chain" in item.fixturenames:
            item.add_marker(pytest.mark.slow)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    if UNDER_XDIST:
        first = min(chained, default=None)
        items.sort(key=lambda i: (i.path != first, i.path not in slow - chained, i.path not in chained))


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


@pytest.fixture(scope="session")
def small_pocket(tmp_path_factory):
    """The folder of a pocket collection of six scenes, to be read only: a test that changes files builds its own."""
    from ttlkit.data import pocket

    return pocket.build(tmp_path_factory.mktemp("made") / "pocket-6", 6)


@pytest.fixture(scope="module")
def browser(request):
    """Debian's Chromium, started with the module's CHROMIUM_ARGUMENTS where it has some; skips where there is none."""
    driver = pytest.importorskip("playwright.sync_api", reason="needs the package playwright (extra `test`)")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not path:
        pytest.skip("needs Chromium: apt-get install chromium")
    arguments = ["--no-sandbox", *getattr(request.module, "CHROMIUM_ARGUMENTS", [])]
    with driver.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=arguments)
        yield opened
        opened.close()


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


def environment(home):
    """Of a command that works in `home`, with the library of this checkout."""
    return {**os.environ, "TTLKIT_HOME": str(home), "PYTHONPATH": str(REPO)}


def reproduce(home, *arguments, **kwargs):
    """`ttlkit reproduce --profile smoke`, started."""
    command = [sys.executable, "-m", "ttlkit.cli", "reproduce", "--profile", "smoke", *arguments]
    options = {"env": environment(home), "cwd": home, "text": True, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, stderr=subprocess.STDOUT, **options, **kwargs)


@pytest.fixture(scope="session")
def chain(tmp_path_factory):
    """The smoke chain, run once for all workers: (home, what it printed). To be read, or added to.

    `.ci/run` has just run it, and names the file of what it printed: then a copy of that run is taken.
    """
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if UNDER_XDIST else shared
    home, record = shared / "whole", shared / "whole.json"
    with FileLock(f"{record}.lock"):
        if not record.exists():
            home.mkdir()
            if finished := os.environ.get("TTLKIT_SMOKE_LOG"):
                for part in ("outputs/smoke", "datasets/pocket-8"):
                    shutil.copytree(Path(finished).parents[1] / part, home / part)
                lines = Path(finished).read_text().splitlines()
                printed = "\n".join(line for line in lines if not line.startswith("== "))  # of `.ci/run` itself
                record.write_text(json.dumps([0, printed]))
            else:
                process = reproduce(home)
                printed, _ = process.communicate(timeout=600)
                record.write_text(json.dumps([process.returncode, printed]))
    code, printed = json.loads(record.read_text())
    assert code == 0, printed
    return home, printed
