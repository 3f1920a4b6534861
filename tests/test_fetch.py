"""Fetching, against a server that misbehaves in every way named in datasets/README.md, and against kills."""

import hashlib
import inspect
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
import zipfile
from contextlib import nullcontext
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ttlkit.data.public import catalogue, download
from ttlkit.data.public.catalogue import DataSet, Mirror, Rule, is_target, load_catalogue
from ttlkit.data.public.fetch import FetchError, fetch, problems, rows
from ttlkit.data.public.unpack import unpack

REPO = Path(__file__).resolve().parents[1]
QUICK = {"TRIES": 3, "MOST_TRIES": 12, "WAIT": 0.01, "TIMEOUT": (2, 0.6), "WINDOW": 0.25, "SLOWEST": 20_000}
RULES = (
    Rule(r"Rain100L/rainy/rain-(?P<n>\d+)\.png", "test/rain/rainy/{n}.png"),
    Rule(r"Rain100L/norain-(?P<n>\d+)\.png", "test/rain/clean/{n}.png"),
)


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Less patience than with the real servers."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUICK.items():
            patch.setattr(download, name, value)
        yield


def picture(seed, width=24, height=16):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def pairs(count=3, seed=0):
    files = {f"top/Rain100L/rainy/rain-{i:03d}.png": picture([seed, i]) for i in range(count)}
    files |= {f"top/Rain100L/norain-{i:03d}.png": picture([seed, i, 1]) for i in range(count)}
    return files | {"top/README.md": b"read me"}


def zipped(files, how=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(files, mode="w:gz"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def known(files):
    """sha256 by place in the collection, as in datasets/hashes/."""
    entry = a_set()
    return {to: hashlib.sha256(data).hexdigest() for name, data in files.items() for to, *_ in entry.targets(name)}


def a_set(*urls, **keys):
    keys = {"count": 3, "rules": RULES, **keys}
    return DataSet(
        title="Some rain", version="first", kind=keys.pop("kind", "test"), citation="Somebody 2017",
        licence="none stated", mirrors=tuple(Mirror(urls=(url,)) for url in urls), name="rain", **keys,
    )  # fmt: skip


# ---- the server ---------------------------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """Answers each path by its list of behaviours, one a request; the last one goes on. Keeps a log."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.log, self.sent = {}, [], 0

    def url(self, name, *behaviours):
        self.answers[f"/{name}"] = list(behaviours)
        return f"http://127.0.0.1:{self.server_port}/{name}"

    def handle_error(self, request, client_address):
        pass  # the client hung up, as it should


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = self.path.split("?")[0]
        behaviours = self.server.answers.get(path, [status(404)])
        self.server.log.append((path, self.headers.get("Range", "")))
        self.close_connection = True
        (behaviours.pop(0) if len(behaviours) > 1 else behaviours[0])(self)

    def begin(self, code, length=None, **headers):
        self.send_response(code)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        self.end_headers()

    def give(self, data):
        self.wfile.write(data)
        self.wfile.flush()
        self.server.sent += len(data)

    def log_message(self, *arguments):
        pass


def whole(data, cut=None, etag='"1"', declared=None, ranges=True, pause=0.0, ignores_if_range=False, **headers):
    """Serve `data`, by range where asked; stop after `cut` bytes of the file, or dribble with pauses."""

    def answer(handler):
        start, total = 0, len(data) if declared is None else declared
        asked = handler.headers.get("Range", "")
        known = (etag, headers.get("Last_Modified"))
        if ranges and asked and (ignores_if_range or handler.headers.get("If-Range", etag) in known):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            handler.begin(206, total - start, Content_Range=f"bytes {start}-{total - 1}/{total}", ETag=etag, **headers)
        else:
            handler.begin(200, total, ETag=etag, **headers)
        body = data[start : len(data) if cut is None else cut]
        if not pause:
            handler.give(body)
        for i in range(0, len(body), 50) if pause else ():
            handler.give(body[i : i + 50])
            time.sleep(pause)

    return answer


def status(code, body=b"", **headers):
    return lambda handler: (handler.begin(code, len(body), **headers), handler.give(body))


PAGE = b"<!DOCTYPE html><html><title>Google Drive - Quota exceeded</title></html>"
ARCHIVE = zipped(pairs())
BAD = {
    "gone": (status(404), "HTTP 404"),
    "forbidden": (status(403), "HTTP 403"),
    "broken": (status(500), "HTTP 500"),
    "quota page": (status(200, PAGE, Content_Type="text/html; charset=utf-8"), "web page"),
    "page without a head": (status(200, b"Sign in", Content_Type="text/html"), "web page"),
    "quota page as a file": (status(200, PAGE, Content_Type="application/octet-stream"), "web page"),
    "always cut": (whole(ARCHIVE, cut=100), "connection cut: 100 of"),
    "cut without range": (whole(ARCHIVE, cut=100, ranges=False), "connection cut: 100 of"),
    "too long": (whole(ARCHIVE, declared=len(ARCHIVE) + 50), "connection cut"),
    "too short": (whole(ARCHIVE[: len(ARCHIVE) // 2]), "damaged or cut short"),
    "wrong bytes": (whole(zipped(pairs(seed=9))), "6 files are missing, new or have other bytes"),
    "another archive": (whole(zipped({"a/b.png": picture(1)})), "nothing in it looks like Some rain, for instance"),
    "noise": (whole(bytes(range(256)) * 20), "not an archive"),
    "slow drip": (whole(ARCHIVE, pause=0.02), "too slow"),
    "stall": (lambda handler: (handler.begin(200, 5000), time.sleep(1)), "connection cut"),
    "redirect circle": (lambda handler: handler.begin(302, 0, Location=handler.path), "30 redirects"),
    "redirect to nowhere": (lambda handler: handler.begin(302, 0, Location="gopher://x/"), "InvalidSchema"),
    "rar": (whole(b"Rar!\x1a\x07\x01\x00" + bytes(600)), "RAR and 7z are not read"),
    "one picture missing": (whole(zipped(dict(list(pairs().items())[1:]))), "have no partner (first: test/rain/000)"),
    "too few": (whole(zipped(pairs(2))), "2 found, but Some rain has 3"),
    "range nonsense": (lambda handler: handler.begin(206, 0, Content_Range="bytes 7-8/9"), "range"),
}


@pytest.fixture
def server():
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()


def run(entry, home, **keys):
    lines = []
    keys = {"say": lines.append, **keys}
    report = fetch(entry, home / "col", datasets=home / "data", **keys)
    return report, lines


def tree(folder):
    """What a collection holds, without the fetcher's own notes: path -> sha256."""
    files = [path for path in folder.rglob("*") if path.is_file() and ".fetched" not in path.parts]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# ---- downloads ----------------------------------------------------------------------------------------------------


def test_a_set_arrives_whole_says_whom_to_cite_once_and_is_not_fetched_twice(server, tmp_path):
    entry = a_set(server.url("a.zip", whole(ARCHIVE)), known=known(pairs()), verify="exact")
    report, lines = run(entry, tmp_path)
    assert tree(tmp_path / "col") == entry.known and report.files == 6 and report.new
    assert report.source == entry.mirrors[0].label
    assert sum("cite: Somebody 2017" in line and "licence: none stated" in line for line in lines) == 1
    assert {path.name for path in (tmp_path / "col" / "test" / "rain" / "rainy").iterdir()} == {
        "000.png", "001.png", "002.png",
    }  # fmt: skip
    again, lines = run(entry, tmp_path)
    assert not again.new and lines == [] and len(server.log) == 1
    assert not list((tmp_path / "data" / ".downloads").glob("*/*")), "the archive is not kept"
    assert [row.fetched for row in rows({"rain": entry}, tmp_path / "col")] == [True]
    assert problems(entry, tmp_path / "col") == []


@pytest.mark.parametrize("how", list(BAD))
def test_whatever_one_mirror_does_the_next_one_is_tried(server, tmp_path, how):
    behaviour, reason = BAD[how]
    urls = server.url("bad.zip", behaviour), server.url("good.zip", whole(ARCHIVE))
    entry = a_set(*urls, known=known(pairs()), verify="exact")
    report, lines = run(entry, tmp_path)
    assert report.source == urls[1] and tree(tmp_path / "col") == entry.known
    failed = [line for line in lines if line.startswith(f"rain: {urls[0]}: ")]
    assert len(failed) == 1 and reason in failed[0] and "\n" not in failed[0]


@pytest.mark.parametrize("how", ["gone", "always cut", "wrong bytes", "another archive"])
def test_when_all_fail_each_reason_is_told_and_nothing_is_left(server, tmp_path, how):
    urls = server.url("a.zip", BAD[how][0]), server.url("b.zip", status(503))
    keeper = tmp_path / "col" / "test" / "mine" / "rainy" / "1.png"
    keeper.parent.mkdir(parents=True)
    keeper.write_bytes(picture(5))
    before = tree(tmp_path / "col")
    with pytest.raises(FetchError) as error:
        run(a_set(*urls, known=known(pairs()), verify="exact"), tmp_path)
    lines = str(error.value).splitlines()
    assert len(lines) == 4 and BAD[how][1] in lines[1] and "HTTP 503" in lines[2]
    assert str(tmp_path / "data" / "drop" / "rain") in lines[3]
    assert tree(tmp_path / "col") == before
    assert not [path for path in (tmp_path / "col" / ".fetched").iterdir() if path.is_dir()], "nothing half done"


@pytest.mark.parametrize(
    "first",
    [status(404), status(503), whole(ARCHIVE, cut=0), lambda handler: handler.begin(302, 0, Location="/other.zip")],
    ids=["404 then 200", "503 then 200", "nothing then 200", "redirect"],
)
def test_a_moment_of_confusion_costs_nothing_but_a_moment(server, tmp_path, first):
    server.url("other.zip", whole(ARCHIVE))
    report, _ = run(a_set(server.url("a.zip", first, whole(ARCHIVE))), tmp_path)
    assert report.files == 6


def test_a_cut_download_goes_on_where_it_was(server, tmp_path):
    cuts = [whole(ARCHIVE, cut=cut) for cut in (300, 700, 900)]
    run(a_set(server.url("a.zip", *cuts, whole(ARCHIVE))), tmp_path)
    assert [asked for _, asked in server.log] == ["", "bytes=300-", "bytes=700-", "bytes=900-"]
    assert server.sent == len(ARCHIVE), "no byte was sent twice"


DATE, LATER = {"Last_Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}, {"Last_Modified": "Fri, 02 Jan 2026 00:00:00 GMT"}


@pytest.mark.parametrize("etag", ['W/"1"', None], ids=["weak", "none"])
@pytest.mark.parametrize(("headers", "range"), [(DATE, "bytes=300-"), ({}, "")], ids=["date", "no date"])
def test_only_what_is_surely_the_same_file_is_gone_on_with(server, tmp_path, etag, headers, range):
    """A weak ETag promises nothing about bytes; a date does."""
    keys = {"etag": etag, "ignores_if_range": True, **headers}
    run(a_set(server.url("a.zip", whole(ARCHIVE, cut=300, **keys), whole(ARCHIVE, **keys))), tmp_path)
    assert [asked for _, asked in server.log] == ["", range]


@pytest.mark.parametrize("ignores_if_range", [False, True])
@pytest.mark.parametrize("etag", ['W/"1"', None], ids=["weak", "none"])
@pytest.mark.parametrize("later", [LATER, {}], ids=["another date", "no date"])
def test_a_file_of_another_date_is_not_put_behind_the_old_one(server, tmp_path, etag, later, ignores_if_range):
    old, new = zipped(pairs(seed=4)), {"etag": etag, "ignores_if_range": ignores_if_range, **later}
    url = server.url("a.zip", whole(old, cut=500, etag=etag, **DATE), whole(ARCHIVE, **new))
    run(a_set(url, known=known(pairs()), verify="exact"), tmp_path)
    assert tree(tmp_path / "col") == known(pairs())


def test_a_later_fetch_goes_on_where_the_first_one_gave_up(server, tmp_path):
    entry = a_set(server.url("a.zip", whole(ARCHIVE, cut=400), status(500)))
    with pytest.raises(FetchError, match="HTTP 500"):
        run(entry, tmp_path)
    server.url("a.zip", whole(ARCHIVE))
    run(entry, tmp_path)
    assert server.log[-1][1] == "bytes=400-" and server.sent == len(ARCHIVE)


@pytest.mark.parametrize(
    "then",
    [
        (whole(ARCHIVE, ranges=False),),
        (whole(ARCHIVE, etag='"2"'),),
        (whole(ARCHIVE, etag='"2"', ignores_if_range=True), whole(ARCHIVE, etag='"2"')),
        (status(416), whole(ARCHIVE)),
    ],
    ids=["no range", "changed", "a range of what is there now", "range past the end"],
)
def test_a_server_that_cannot_go_on_starts_afresh(server, tmp_path, then):
    old = zipped(pairs(seed=4))
    run(a_set(server.url("a.zip", whole(old, cut=500), *then), known=known(pairs()), verify="exact"), tmp_path)
    assert tree(tmp_path / "col") == known(pairs())


def test_a_file_without_length_is_taken(server, tmp_path):
    def chunked(handler):
        handler.begin(200, Transfer_Encoding="chunked")
        for i in range(0, len(ARCHIVE), 600):
            part = ARCHIVE[i : i + 600]
            handler.give(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        handler.give(b"0\r\n\r\n")

    def cut_chunked(handler):
        handler.begin(200, Transfer_Encoding="chunked")
        handler.give(b"258\r\n" + ARCHIVE[:100])

    assert run(a_set(server.url("a.zip", cut_chunked, chunked)), tmp_path)[0].files == 6


def test_a_file_larger_than_the_disk_is_refused_before_it_is_begun(server, tmp_path):
    entry = a_set(server.url("a.zip", whole(ARCHIVE, declared=1 << 60)))
    with pytest.raises(FetchError, match=r"disk full: \d+ MiB free") as error:
        run(entry, tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_an_endless_stream_is_ended(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "MOST_BYTES", 5000)

    def endless(handler):
        handler.begin(200, Transfer_Encoding="chunked")
        while True:
            handler.give(b"400\r\n" + bytes(1024) + b"\r\n")

    with pytest.raises(FetchError, match="sends more than 5000 bytes"):
        run(a_set(server.url("a.zip", endless)), tmp_path)


def test_github_is_asked_for_a_commit_or_for_single_files(server, tmp_path, monkeypatch):
    base = server.url("", status(404)).rstrip("/")
    monkeypatch.setattr(catalogue, "GITHUB_ARCHIVE", base + "/zip/{}/{}")
    monkeypatch.setattr(catalogue, "GITHUB_RAW", base + "/raw/{}/{}/{}")
    server.url("zip/who/what/0123abc", whole(ARCHIVE))
    files = pairs()
    for name, data in files.items():
        server.url(f"raw/who/what/0123abc/{name}", whole(data))
    for i, mirror in enumerate(
        (Mirror(github="who/what", commit="0123abc"), Mirror(github="who/what", commit="0123abc", files=tuple(files)))
    ):
        entry = replace(a_set(), mirrors=(mirror,), known=known(files), verify="exact")
        run(entry, tmp_path / str(i))
        assert tree(tmp_path / str(i) / "col") == entry.known


def test_several_sets_of_one_download_share_it(server, tmp_path):
    url = server.url("a.zip", whole(ARCHIVE))
    for name in ("one", "two"):
        entry = replace(a_set(), mirrors=(Mirror(urls=(url,), keep=True),), name=name)
        run(entry, tmp_path / "x")
        run(replace(entry, name=name + "-b"), tmp_path / "x", accept=True)
    other = replace(entry, name="other", rules=(Rule(r"other/(?P<n>\d+)\.png", "test/other/rainy/{n}.png"),))
    with pytest.raises(FetchError, match="nothing in it looks like"):
        run(other, tmp_path / "x")
    _, lines = run(entry, tmp_path / "x", accept=True)
    assert len(server.log) == 1 and any("kept for other sets" in line for line in lines)


def test_a_damaged_download_that_was_left_is_fetched_again(server, tmp_path):
    entry = replace(a_set(), mirrors=(Mirror(urls=(server.url("a.zip", whole(ARCHIVE)),), keep=True),))
    run(entry, tmp_path)
    archive = next((tmp_path / "data" / ".downloads").glob("*/a.zip"))
    archive.write_bytes(ARCHIVE[:2000])
    run(entry, tmp_path, accept=True)
    assert len(server.log) == 2 and archive.read_bytes() == ARCHIVE


# ---- Google Drive -------------------------------------------------------------------------------------------------

FAKE_GDOWN = """
import os, pathlib, shutil, sys, time
def _act(output):
    how = os.environ["FAKE_GDOWN"]
    if how == "stall":
        time.sleep(30)
    if how == "fail":
        raise RuntimeError("Cannot retrieve the public link")
    return how
def download(url, output, quiet, resume, use_cookies):
    how = _act(output)
    target, archive = pathlib.Path(output), pathlib.Path(__file__).with_name("archive")
    if how == "cut" and not target.with_name("half.part").exists():
        target.with_name("half.part").write_bytes(archive.read_bytes()[:1000])
        raise RuntimeError("Connection aborted")
    target.write_bytes(b"<html>" if how == "page" else archive.read_bytes())
    return output
def download_folder(url, output, quiet, resume, use_cookies):
    how = _act(output)
    inner = pathlib.Path(output) / "name of the folder"
    inner.mkdir(parents=True, exist_ok=True)
    return [shutil.copy(pathlib.Path(__file__).with_name("archive"), inner / "data.zip")]
"""


@pytest.fixture
def gdown(tmp_path, monkeypatch):
    """A gdown for the child process that does what the test says: it has no Drive to talk to."""
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "gdown.py").write_text(FAKE_GDOWN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))
    archive = tmp_path / "fake" / "archive"
    archive.write_bytes(ARCHIVE)

    def act(how):
        monkeypatch.setenv("FAKE_GDOWN", how)
        monkeypatch.setattr(download, "WINDOW", 0.25 if how == "stall" else 20)  # a process has to start first

    return act


def drive_set(**mirror):
    return replace(a_set(), mirrors=(Mirror(**mirror),), known=known(pairs()), verify="exact")


def test_gdown_takes_what_we_give_it():
    import gdown

    words = {"url", "output", "quiet", "resume", "use_cookies"}
    for call in (gdown.download, gdown.download_folder):
        assert words <= set(inspect.signature(call).parameters)
    assert all(f"{word}=" in download.GDOWN for word in words)


def test_a_drive_file_comes_by_gdown_and_shows_how_far_it_is(tmp_path, gdown):
    gdown("deliver")
    told = []
    run(drive_set(drive="i" * 33), tmp_path, progress=lambda done, total: told.append(done))
    assert tree(tmp_path / "col") == known(pairs()) and told


def test_a_drive_download_that_is_cut_goes_on(tmp_path, gdown):
    gdown("cut")
    run(drive_set(drive="i" * 33), tmp_path)
    assert tree(tmp_path / "col") == known(pairs())


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("fail", "gdown: Cannot retrieve the public link"),
        ("page", "not an archive; a web page (quota, sign-in)"),
        ("stall", "too slow"),
    ],
)
def test_drive_that_gives_no_file_says_so(tmp_path, gdown, how, says):
    gdown(how)
    with pytest.raises(FetchError) as error:
        run(drive_set(drive="i" * 33), tmp_path)
    assert says in str(error.value).splitlines()[1]


def test_a_drive_folder_comes_by_gdown(tmp_path, gdown):
    gdown("deliver")
    run(drive_set(drive_folder="i" * 33), tmp_path)
    assert tree(tmp_path / "col") == known(pairs())
    gdown("fail")
    with pytest.raises(FetchError, match="Cannot retrieve the public link"):
        run(drive_set(drive_folder="i" * 33), tmp_path / "other")


# ---- by hand, and what is on record -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["zip", "tar", "tar.gz", "tar.xz", "tar.bz2", "folder", "loose", "as in a collection"])
def test_what_is_dropped_in_by_hand_is_taken_first(server, tmp_path, how):
    entry = a_set(server.url("a.zip", whole(ARCHIVE)), known=known(pairs()), verify="exact")
    drop = tmp_path / "data" / "drop" / "rain"
    drop.mkdir(parents=True)
    if how in ("folder", "loose"):
        files = {name.removeprefix("top/") if how == "loose" else name: data for name, data in pairs().items()}
    elif how == "as in a collection":
        files = {to: data for name, data in pairs().items() for to, *_ in entry.targets(name)}
    else:
        modes = {"tar": "w", "tar.gz": "w:gz", "tar.xz": "w:xz", "tar.bz2": "w:bz2"}
        files = {f"data.{how}": ARCHIVE if how == "zip" else tarred(pairs(), modes[how])}
    for name, data in files.items():
        (drop / name).parent.mkdir(parents=True, exist_ok=True)
        (drop / name).write_bytes(data)
    before = tree(drop)
    report, _ = run(entry, tmp_path)
    assert tree(tmp_path / "col") == entry.known and report.source.startswith("drop folder")
    assert tree(drop) == before and server.log == []


@pytest.mark.parametrize("kind", ["missing", "empty", "device"])
def test_a_drop_that_is_named_and_holds_nothing_is_said_at_once(server, tmp_path, kind):
    (tmp_path / "empty").mkdir()
    drop = Path("/dev/null") if kind == "device" else tmp_path / kind
    with pytest.raises(FetchError, match=f"{drop}: no file, and no folder with files"):
        run(a_set(server.url("a.zip", whole(ARCHIVE))), tmp_path, drop=drop)
    assert server.log == []


def test_a_useless_drop_folder_does_not_stop_the_mirrors(server, tmp_path):
    drop = tmp_path / "data" / "drop" / "rain"
    drop.mkdir(parents=True)
    (drop / "data.zip").write_bytes(PAGE)
    report, lines = run(a_set(server.url("a.zip", whole(ARCHIVE))), tmp_path)
    assert report.files == 6 and any(
        "not an archive; a web page (quota, sign-in) saved under its name?" in line for line in lines
    )


def test_names_of_what_is_dropped_in_are_shown_in_one_line(tmp_path):
    drop = tmp_path / "a\x1b[2J\nb"
    drop.mkdir()
    for name, data in (("x\x1b[2J\ny.zip", ARCHIVE[:-30]), ("z\n.zip", PAGE)):
        (drop / name).write_bytes(data)
        lines = []
        with pytest.raises(FetchError) as error:
            run(a_set(), tmp_path, drop=drop, say=lines.append)
        assert all(line.isprintable() for line in [*lines, *str(error.value).splitlines()])
        assert len(str(error.value).splitlines()) == 3


def test_unknown_hashes_are_recorded_at_the_first_download_and_hold_from_then_on(server, tmp_path):
    entry = a_set(server.url("a.zip", whole(ARCHIVE)))
    run(entry, tmp_path)
    recorded = tmp_path / "data" / "recorded" / "rain.sha256"
    lines = [f"{digest}  {path}" for path, digest in sorted(known(pairs()).items())]
    assert recorded.read_text().splitlines() == lines
    server.url("a.zip", whole(zipped(pairs(seed=7))))
    with pytest.raises(FetchError, match=r"6 files .* other bytes than .*rain.sha256 says .*--accept-new-hashes"):
        fetch(entry, tmp_path / "elsewhere", datasets=tmp_path / "data")
    assert recorded.read_text().splitlines() == lines and tree(tmp_path / "elsewhere") == {}
    requests = len(server.log)
    run(entry, tmp_path, accept=True)
    assert tree(tmp_path / "col") == known(pairs(seed=7)) and len(server.log) == requests, "downloaded once"
    assert recorded.read_text().startswith(sorted((p, d) for p, d in known(pairs(seed=7)).items())[0][1])


def test_new_bytes_of_a_known_set_are_taken_on_purpose_only(server, tmp_path):
    entry = a_set(server.url("a.zip", whole(zipped(pairs(seed=7)))), known=known(pairs()), verify="exact")
    with pytest.raises(FetchError, match=r"6 files .* other bytes than hashes/rain.sha256 says"):
        run(entry, tmp_path)
    run(entry, tmp_path, accept=True)
    assert not run(entry, tmp_path)[0].new, "what was accepted stays accepted"
    server.url("a.zip", whole(ARCHIVE))
    run(entry, tmp_path, accept=True)
    assert not (tmp_path / "data" / "recorded" / "rain.sha256").exists(), "the catalogue's own bytes need no record"


def test_lost_and_damaged_files_are_fetched_again(server, tmp_path):
    entry = a_set(server.url("a.zip", whole(ARCHIVE)))
    run(entry, tmp_path)
    (tmp_path / "col/test/rain/rainy/001.png").unlink()
    (tmp_path / "col/test/rain/clean/002.png").write_bytes(b"")
    found = problems(entry, tmp_path / "col")
    assert len(found) == 2 and "002.png: not the bytes" in found[0] and "001.png: missing" in found[1]
    assert not [row.fetched for row in rows({"rain": entry}, tmp_path / "col")][0]
    assert run(entry, tmp_path)[0].new and tree(tmp_path / "col") == known(pairs())


def test_files_of_the_user_are_never_written_over(server, tmp_path):
    mine = tmp_path / "col" / "test" / "rain" / "rainy" / "001.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(FetchError, match="exists with other bytes and is not ours"):
        run(a_set(server.url("a.zip", whole(ARCHIVE))), tmp_path)
    assert tree(tmp_path / "col") == {"test/rain/rainy/001.png": hashlib.sha256(b"mine").hexdigest()}


def test_a_new_version_replaces_the_old_one(server, tmp_path):
    run(a_set(server.url("a.zip", whole(zipped(pairs(5)))), count=5), tmp_path)
    newer = a_set(server.url("b.zip", whole(ARCHIVE)))
    run(replace(newer, version="second"), tmp_path, accept=True)
    assert tree(tmp_path / "col") == known(pairs())


def test_two_fetches_at_once_download_once(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "SLOWEST", 0)
    entry = a_set(server.url("a.zip", whole(ARCHIVE, pause=0.001)))
    reports, said = [], []

    def one():
        reports.append(run(entry, tmp_path, say=said.append)[0])

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(report.new for report in reports) == [False, True] and len(server.log) == 1
    assert any("another fetch is at work" in line for line in said)


# ---- killed -------------------------------------------------------------------------------------------------------

CHILD = """
import os, signal, sys
sys.path[:0] = [{repo!r}, {tests!r}]
from pathlib import Path
import test_fetch as t
from ttlkit.data.public import fetch
t.download.SLOWEST = 0
entry = t.a_set({url!r}, rules={rules}, kind={kind!r}, count=None)
moves, replace = 0, os.replace
def counted(source, target):
    global moves
    moves += ".staging" in str(source)
    if {kill!r} == moves:
        if {after!r}:
            replace(source, target)
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = counted
fetch.fetch(entry, Path({home!r}) / "col", datasets=Path({home!r}) / "data")
print("finished")
"""
CLEAN = (Rule(r"(?P<n>[a-z]+-\d+)\.png", "real/clean/{n}.png"),)


def child(home, url, kind, kill, after=False):
    rules = "t.CLEAN" if kind == "clean" else "t.RULES"
    code = CHILD.format(
        repo=str(REPO),
        tests=str(REPO / "tests"),
        url=url,
        home=str(home),
        kind=kind,
        rules=rules,
        kill=kill,
        after=after,
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_in_the_middle_of_a_download_it_goes_on_from_there(server, tmp_path):
    half, killed = threading.Event(), threading.Event()

    def stop_at_half(handler):
        handler.begin(200, len(ARCHIVE), ETag='"1"')
        handler.give(ARCHIVE[:1000])
        half.set()
        killed.wait(20)

    url = server.url("a.zip", stop_at_half, whole(ARCHIVE))
    process = child(tmp_path, url, "test", 99)
    assert half.wait(20)
    part = tmp_path / "data" / ".downloads"
    for _ in range(200):
        if sum(path.stat().st_size for path in part.glob("*/*.part")) == 1000:
            break
        time.sleep(0.02)
    process.kill()
    process.communicate()
    killed.set()
    assert tree(tmp_path / "col") == {}
    run(a_set(url), tmp_path)
    assert tree(tmp_path / "col") == known(pairs())
    assert server.log[-1] == ("/a.zip", "bytes=1000-") and server.sent == len(ARCHIVE), "no byte was sent twice"


@pytest.mark.parametrize(("kind", "kill", "after"), [("clean", 1, False), ("clean", 4, True), ("test", 1, True)])
def test_killed_in_the_middle_of_the_move_the_next_fetch_completes_it(server, tmp_path, kind, kill, after):
    url = server.url("a.zip", whole(ARCHIVE))
    mine = tmp_path / "col" / "real" / "clean" / "mine.png"  # so that files come one by one, as the folder is there
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    process = child(tmp_path, url, kind, kill, after)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, errors
    assert len(tree(tmp_path / "col")) - 1 == {("clean", 1): 0, ("clean", 4): 4, ("test", 1): 6}[kind, kill], (
        "a folder of pairs in one go"
    )
    assert not (tmp_path / "col" / ".fetched" / "rain.json").exists()
    server.url("a.zip", status(404))
    report, _ = run(a_set(url, kind=kind, rules=CLEAN if kind == "clean" else RULES, count=None), tmp_path)
    assert report.files == 6 and len(tree(tmp_path / "col")) == 7 and len(server.log) == 1, "without the network"
    assert not [path for path in (tmp_path / "col" / ".fetched").iterdir() if path.is_dir()], "nothing half done"


# ---- disks --------------------------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_made_gives_one_line(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FetchError) as error:
        run(a_set(server.url("a.zip", whole(ARCHIVE))), tmp_path / "file")
    assert "\n" not in str(error.value) and "cannot be read or written (Not a directory)" in str(error.value)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(("number", "says"), [(28, r"disk full: \d+ MiB free"), (30, "Read-only file system")])
def test_a_full_or_read_only_disk_gives_one_line_and_costs_nothing(server, tmp_path, monkeypatch, number, says):
    entry = a_set(server.url("a.zip", whole(ARCHIVE)))
    run(replace(entry, name="before"), tmp_path, accept=True)
    before = tree(tmp_path / "col")

    def refuse(*arguments, **keys):
        raise OSError(number, os.strerror(number), str(tmp_path / "col" / "x"))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(FetchError, match=says) as error:
            run(entry, tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path / "col") in str(error.value)
    assert tree(tmp_path / "col") == before
    assert run(entry, tmp_path)[0].files == 6


def test_a_file_that_really_does_not_fit_gives_one_line(server, tmp_path):
    """RLIMIT_FSIZE makes the kernel refuse the write, as a full disk does."""
    url = server.url("a.zip", whole(zipped({f"x/rain-{i}.png": picture(i, 200, 200) for i in range(2)})))
    code = textwrap.dedent(f"""
        import resource, sys
        sys.path[:0] = [{str(REPO)!r}, {str(REPO / "tests")!r}]
        from pathlib import Path
        import test_fetch as t
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        try:
            t.run(t.a_set({url!r}, kind="clean", rules=t.CLEAN, count=None), Path({str(tmp_path)!r}))
        except t.FetchError as error:
            print(error)
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip().count("\n") == 0 and "File too large" in done.stdout, done.stdout + done.stderr
    assert str(tmp_path) in done.stdout


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")
def test_a_small_disk_fills_up(server, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no mounting here")
    try:
        url = server.url("a.zip", whole(zipped({f"x/rain-{i}.png": picture(i, 150, 150) for i in range(6)})))
        entry = a_set(url, kind="clean", rules=CLEAN, count=None)
        with pytest.raises(FetchError, match=r"disk full: 0 MiB free") as error:
            fetch(entry, small / "col", datasets=tmp_path / "data")
        assert "\n" not in str(error.value) and str(small) in str(error.value)
        assert tree(small / "col") == {} and not list((small / "col" / ".fetched").glob("*/"))
    finally:
        subprocess.run(["umount", str(small)], check=True)


# ---- archives -----------------------------------------------------------------------------------------------------


def stage(data, tmp_path, name="x.zip", **keys):
    (tmp_path / "in").mkdir(exist_ok=True)
    (tmp_path / "in" / name).write_bytes(data)
    return unpack(a_set(**keys), tmp_path / "in", tmp_path / "staging")


def with_link(kind):
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            info = zipfile.ZipInfo("Rain100L/rainy/rain-000.png")
            info.external_attr = 0o120777 << 16
            archive.writestr(info, "/etc/passwd")
    else:
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            info = tarfile.TarInfo("Rain100L/rainy/rain-000.png")
            info.type, info.linkname = (
                {"sym": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "dev": tarfile.CHRTYPE}[kind],
                "/x",
            )
            archive.addfile(info)
    return buffer.getvalue()


def encrypted():
    data = bytearray(zipped({"Rain100L/rainy/rain-000.png": picture(0)}))
    data[6] |= 1
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def bomb():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Rain100L/rainy/rain-000.png", bytes(20 << 20))
    return buffer.getvalue()


def header_bomb():
    """A tar whose extended header unpacks to 40 MiB; tarfile reads such headers into memory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a")
        info.pax_headers = {"comment": "x" * (40 << 20)}
        archive.addfile(info)
    return buffer.getvalue()


def sparse(size):
    """A tar of 2 kB whose picture says that it has so many bytes, nearly all of them a hole."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("Rain100L/rainy/rain-000.png")
        info.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(size), "GNU.sparse.name": info.name}
        archive.addfile(info)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (zipped(pairs() | {"../evil.png": b""}), "unsafe path"),
        (zipped(pairs() | {"/etc/evil.png": b""}), "unsafe path"),
        (zipped(pairs() | {"a\\..\\evil.png": b""}), "unsafe path"),
        (zipped(pairs() | {"C:/evil.png": b""}), "unsafe path"),
        (zipped(pairs() | {"a\nb.png": b""}), "unsafe path"),
        (tarred(pairs() | {"a/../../evil.png": b""}), "unsafe path"),
        (tarred(pairs() | {"/evil.png": b""}), "unsafe path"),
        (with_link("zip"), "is a link or no plain file"),
        (with_link("sym"), "is a link or no plain file"),
        (with_link("hard"), "is a link or no plain file"),
        (with_link("dev"), "is a link or no plain file"),
        (encrypted(), "is encrypted"),
        (bomb(), "a compression bomb"),
        (header_bomb(), "a compression bomb"),
        (sparse(1 << 30), "a compression bomb"),
        (sparse(1 << 20), "is a sparse file"),
        (tarred({"unwanted": bytes(30 << 20)} | pairs()), "a compression bomb"),
        (zipped(pairs() | {"b/Rain100L/rainy/rain-000.png": picture(3)}), "would both become test/rain/rainy/000.png"),
        (zipped(pairs() | {"top/Rain100L/rainy/rain-001.png": b"not a picture"}), "not an image"),
        (zipped(pairs() | {"top/Rain100L/rainy/rain-001.png": picture(1)[:-60]}), "unreadable"),
        (zipped({}), "nothing in it looks like"),
        (ARCHIVE[:-30], "damaged or cut short"),
        (tarred(pairs())[:-200], "damaged"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(99), "7z x"),
    ],
)
def test_what_is_not_safe_or_not_sound_is_refused_in_one_line(tmp_path, data, says):
    (tmp_path / "canary").write_text("alive")
    with pytest.raises(FetchError) as error:
        stage(data, tmp_path)
    assert says in str(error.value) and "\n" not in str(error.value)
    assert {path.name for path in tmp_path.iterdir()} <= {"canary", "in", "staging"}


@pytest.mark.parametrize("letter", ["x", "é", "雨", "🌧"])
def test_a_name_too_long_for_disks_is_refused_and_any_other_taken(tmp_path, letter):
    """Disks count bytes: 80 signs of Chinese are 240."""
    keys = {"kind": "clean", "count": None, "rules": (Rule(r"(?P<n>[^/]+)\.png", "real/clean/{n}.png"),)}
    fits, long = (letter * (size // len(letter.encode())) for size in (230, 300))
    if letter != "🌧":  # no letter of any language
        assert list(stage(zipped({f"{fits}.png": picture(0)}), tmp_path, **keys)) == [f"real/clean/{fits}.png"]
    with pytest.raises(FetchError, match="which is no file of a collection"):
        stage(zipped({f"{long}.png": picture(0)}), tmp_path, **keys)


def test_a_web_page_is_no_file_of_weights(tmp_path):
    rule = (Rule(r"net\.pth", "peers/net.pth"),)
    with pytest.raises(FetchError, match="is a web page"):
        stage(PAGE, tmp_path, "net.pth", kind="weights", rules=rule, count=1)


def test_what_is_not_wanted_in_a_folder_is_passed_over(tmp_path):
    """A page about the set, a link to nowhere, and what a cut download left."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "README.html").write_bytes(PAGE)
    (tmp_path / "in" / "archive.zip.part").write_bytes(ARCHIVE[:1000])
    (tmp_path / "in" / "gone.zip").symlink_to("nowhere")
    assert len(stage(ARCHIVE, tmp_path)) == 6


def test_sizes_are_limited(tmp_path):
    with pytest.raises(FetchError, match="too large"):
        stage(ARCHIVE, tmp_path, limit_gib=2000 / 2**30)


def test_names_that_differ_only_by_capitals_or_unicode_form_are_refused(tmp_path):
    rule = (Rule(r"(?P<n>\w+)\.(?P<s>\w+)", "real/clean/{n}.{s}"),)
    for one, other in (("rain.png", "Rain.png"), ("rain.png", "rain.jpg"), ("\u212b.png", "\u00c5.png")):
        with pytest.raises(FetchError, match="would both become"):
            stage(zipped({f"a/{one}": picture(1), f"b/{other}": picture(2)}), tmp_path, kind="clean", rules=rule)


def test_side_by_side_pictures_are_cut(tmp_path):
    rule = (Rule(r"(?P<n>\d+)\.jpg", "test/rain/{side}/{n}.jpg", split=("clean", "rainy")),)
    both = np.random.default_rng(1).integers(0, 256, (8, 20, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(both).save(buffer, "PNG")
    files = stage(zipped({"1.jpg": buffer.getvalue()}), tmp_path, rules=rule, count=1)
    assert set(files) == {"test/rain/clean/1.png", "test/rain/rainy/1.png"}
    assert set(files.values()) == {hashlib.sha256(buffer.getvalue()).hexdigest()}
    for side, part in (("clean", both[:, :10]), ("rainy", both[:, 10:])):
        assert (np.asarray(Image.open(tmp_path / "staging" / "test" / "rain" / side / "1.png")) == part).all()
    with pytest.raises(FetchError, match="not 2 pictures side by side"):
        stage(zipped({"1.jpg": picture(1, width=25)}), tmp_path, rules=rule)


def test_one_clean_picture_serves_many_rainy_ones(tmp_path):
    rules = load_catalogue()["gt-rain"].rules
    names = ["S-R-000", "S-R-001", "S-R-002", "S-C-000", "T-R-000", "T-R-001", "T-C-000", "T-C-001"]
    files = {f"GT-RAIN_test/{name[0]}/{name}.png": picture(i) for i, name in enumerate(names)}
    staged = stage(zipped(files), tmp_path, rules=rules, count=5)
    clean = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (tmp_path / "staging/test/gt-rain/clean").iterdir()
    }
    assert {to[-9:]: digest for to, digest in staged.items() if "/clean/" in to} == clean
    origin = {name: hashlib.sha256(picture(i)).hexdigest() for i, name in enumerate(names)}
    assert clean == {
        "S-000.png": origin["S-C-000"], "S-001.png": origin["S-C-000"], "S-002.png": origin["S-C-000"],
        "T-000.png": origin["T-C-000"], "T-001.png": origin["T-C-001"],
    }  # fmt: skip


def test_shadow_files_of_macos_are_passed_over(tmp_path):
    extra = {"__MACOSX/top/Rain100L/rainy/rain-000.png": b"x", "top/Rain100L/rainy/._rain-000.png": b"x"}
    assert len(stage(zipped(pairs() | extra), tmp_path)) == 6


_names = st.one_of(
    st.sampled_from(list(pairs())),
    st.text(st.sampled_from("ab/.\\:*\n é~"), min_size=1, max_size=12),
    st.sampled_from(["../../rain-1.png", "Rain100L/rainy/../../rain-1.png", "/Rain100L/norain-1.png", "C:/x", "a//b"]),
)
_data = st.one_of(st.binary(max_size=40), st.sampled_from([picture(0), picture(1), bytes(5000)]))


def _survives(folder, data, name):
    """Whatever the archive holds: staged inside, in the layout, or one clear line; and nothing outside changes."""
    (folder / "canary").write_text("alive")
    target = folder / "home"
    target.mkdir()
    try:
        found = stage(data, target, name=name, count=None)
    except FetchError as error:
        assert "\n" not in str(error)
    else:
        assert found and all(is_target(path, "test") for path in found)
        assert {path for path in tree(target / "staging") if not path.startswith(".")} == set(found)
    assert {path.name for path in folder.iterdir()} == {"canary", "home"}
    assert {path.name for path in target.iterdir()} <= {"in", "staging"}
    assert not any(path.is_symlink() for path in target.rglob("*"))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(_names, _data, st.sampled_from("fffsldh")), max_size=6), st.sampled_from(["zip", "tar"]))
def test_any_archive_is_unpacked_inside_or_refused(tmp_path_factory, members, kind):
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data, what in members:
                info = zipfile.ZipInfo(name)
                info.external_attr = (0o120777 if what == "s" else 0o100644) << 16
                with pytest.warns() if name in archive.namelist() else nullcontext():
                    archive.writestr(info, data)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for name, data, what in members:
                info = tarfile.TarInfo(name)
                types = {"s": tarfile.SYMTYPE, "l": tarfile.LNKTYPE, "d": tarfile.DIRTYPE, "h": tarfile.CHRTYPE}
                info.type, info.linkname = types.get(what, tarfile.REGTYPE), "../../x" if what in "sl" else ""
                info.size = len(data) if what == "f" else 0
                archive.addfile(info, io.BytesIO(data))
    _survives(tmp_path_factory.mktemp("any"), buffer.getvalue(), f"x.{kind}")


WRECKS = {"zip": ARCHIVE, "tar": tarred(pairs(), "w"), "tar.gz": tarred(pairs()), "tar.xz": tarred(pairs(), "w:xz")}


@settings(deadline=None, max_examples=50)
@given(
    kind=st.sampled_from(sorted(WRECKS)),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
    keep=st.floats(0, 1) | st.just(1.0),
)
def test_any_wreck_of_an_archive_is_unpacked_or_refused(tmp_path_factory, kind, flips, keep):
    data = bytearray(WRECKS[kind])
    for at, value in flips:
        data[int(at * (len(data) - 1))] = value
    _survives(tmp_path_factory.mktemp("wreck"), bytes(data[: int(keep * len(data))]), f"x.{kind}")


@settings(deadline=None, max_examples=25)
@given(st.text(max_size=60) | st.dictionaries(st.sampled_from(["files", "version", "source"]), st.none() | st.text()))
def test_a_damaged_marker_is_no_marker(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("marker")
    (folder / ".fetched").mkdir()
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / ".fetched" / "rain.json").write_text(text, encoding="utf-8", errors="replace")
    assert not rows({"rain": a_set()}, folder)[0].fetched
    assert problems(a_set(), folder) == [f"rain: not fetched into {folder}"]


# ---- the real catalogue -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["prenet-weights", "yard", "nturain-a1", "ddn-val"])
def test_a_copy_of_a_real_set_is_recognised_by_its_hashes(shared_data, tmp_path, name):
    entry = load_catalogue()[name]
    drop = shared_data / "peers" if name == "prenet-weights" else shared_data / "collection" / "test" / name
    report = fetch(entry, tmp_path / "col", drop, datasets=tmp_path / "data")
    assert tree(tmp_path / "col") == dict(entry.known) and report.files == len(entry.known)
    assert not (tmp_path / "data" / "recorded").exists()


@pytest.mark.parametrize("name", ["fern", "terrace"])
def test_pairs_that_were_made_from_a_video_come_from_a_copy(shared_data, tmp_path, name):
    entry = load_catalogue()[name]
    report = fetch(entry, tmp_path / "col", shared_data / "collection" / entry.kind / name, datasets=tmp_path / "data")
    assert tree(tmp_path / "col") == dict(entry.known) and report.files == len(entry.known)
    assert entry.kind == ("val" if name == "terrace" else "test")


def test_without_mirrors_the_way_out_is_the_drop_folder(tmp_path):
    entry = load_catalogue()["yard"]
    with pytest.raises(FetchError, match="no mirror is known") as error:
        fetch(entry, tmp_path / "col", datasets=tmp_path / "data")
    assert f"put {entry.drop} into {tmp_path / 'data' / 'drop' / 'yard'}" in str(error.value)


def test_downloads_without_a_server_fail_plainly(tmp_path):
    with pytest.raises(FetchError, match="refused.*try 3"):
        download.download("http://127.0.0.1:9/x", tmp_path / "x")
    assert not (tmp_path / "x").exists()
