"""The catalogue: every entry fits the layout, whatever is wrong with a file is said in one line, hashes are true."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttlkit.data.public.catalogue import CatalogueError, is_target, load_catalogue, load_hashes

REPO = Path(__file__).resolve().parents[1]
CATALOGUE = load_catalogue()
GOOD = {
    "title": "A set",
    "version": "first",
    "kind": "test",
    "citation": "Somebody",
    "licence": "none stated",
    "rules": [{"match": r"in/(?P<n>\d+)\.png", "to": "test/a/rainy/{n}.png"}],
    "mirrors": [{"github": "who/what", "commit": "0123abc"}, {"drive": "a" * 33}],
}


def _toml(value):
    """A value as TOML; JSON's strings, numbers and arrays are TOML already."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _load(folder, table, name="a"):
    lines = [f"{json.dumps(key)} = {_toml(value)}" for key, value in table.items()]
    path = folder / "catalogue.toml"
    path.write_text("\n".join([f"[{json.dumps(name)}]", *lines]), encoding="utf-8")
    return load_catalogue(path)


def test_every_public_set_has_an_entry_and_a_way_to_get_it():
    names = "rain13k-train test100 rain100h rain100l test1200 test2800 spa-data realrain-1k gt-rain rainds-real rain800"
    names += " mpid-rid mpid-ris sirr-real rain12 prenet-weights kodak mwd-rain yard ddn-val nturain-a1 roadscene-rain"
    assert set(names.split()) <= set(CATALOGUE)
    for entry in CATALOGUE.values():
        assert entry.mirrors or entry.drop != CATALOGUE["rain100l"].drop, f"{entry.name}: say what to drop"
        kinds = [mirror.place for mirror in entry.mirrors]
        assert kinds == sorted(kinds, key=["GitHub", "web", "Google Drive"].index), f"{entry.name}: GitHub comes first"
        assert entry.licence in entry.notice and entry.citation in entry.notice


@pytest.mark.parametrize(
    ("name", "path", "becomes"),
    [
        ("rain100l", "Single-Image-Deraining-81bca0b/Rain100L/rainy/rain-007.png", ["test/rain100l/rainy/007.png"]),
        ("rain100l", "Single-Image-Deraining-81bca0b/Rain100L/norain-007.png", ["test/rain100l/clean/007.png"]),
        ("rain100l", "x/README.md", []),
        ("rain100h", "MSPFN/model/test/test_data/R100H/inputcrop/14.png", ["test/rain100h/rainy/014.png"]),
        ("rain100h", "test/Rain100H/target/14.png", ["test/rain100h/clean/014.png"]),
        ("rain100h", "test/Rain100L/target/14.png", []),
        (
            "rain800-train",
            "dataset/rain/training/11.jpg",
            ["synthetic/rain800-train/clean/11.png", "synthetic/rain800-train/rainy/11.png"],
        ),
        ("rain800-train", "dataset/rain/training/12.jpg", []),  # shows a scene of Rain100L
        ("rain800", "training/2.jpg", []),  # not one of the 200
        ("rain800", "training/1.jpg", ["synthetic/rain800/clean/1.png", "synthetic/rain800/rainy/1.png"]),
        ("streaks-garg06", "Streaks_Garg06/1-8.png", ["streaks/1-8.png"]),
        ("streaks-garg06", "Streaks_Garg06/1-1.png", []),
        ("kodak", "kodim03.png", ["real/clean/kodak_kodim03.png"]),
        ("yard", "yard/clean/yard_030.png", ["test/yard/clean/yard_030.png"]),
        ("prenet-weights", "PReNet-6d908d1/logs/Rain100L/PReNet6/net_latest.pth", ["peers/prenet-rain100l.pth"]),
        ("prenet-weights", "PReNet-6d908d1/logs/Rain100L/PReNet6_r/net_latest.pth", []),
        (
            "gt-rain",
            "GT-RAIN_test/Oinari_0-0/Oinari_0-0-C-000.png",
            ["test/gt-rain/clean/Oinari_0-0-*.png"],
        ),
        ("spa-data", "real_test_1000/gt/012gt.png", ["test/spa-data/clean/012.png"]),
    ],
)
def test_a_file_of_the_source_goes_where_the_collection_wants_it(name, path, becomes):
    assert [to for to, *_ in CATALOGUE[name].targets(path)] == becomes


def test_training_sets_leave_out_the_scenes_known_to_be_in_tests(shared_data):
    rows = (shared_data / "leaks" / "expected.csv").read_text().splitlines()[1:]
    leaks = {row.split(",")[0].removesuffix(".jpg") for row in rows if row.endswith(",yes")}
    assert leaks == set(CATALOGUE["rain800-train"].exclude)
    assert not leaks & {Path(path).stem for path in CATALOGUE["rain800"].known}


def _sources(shared_data):
    """Rows of SOURCES.tsv: file in the collection, repository, commit, path there, licence."""
    lines = (shared_data / "SOURCES.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return [line.split("\t") for line in lines]


def test_hashes_are_those_of_the_data_measured_with(shared_data):
    """But for four pictures of mwd-rain, in whose place others lie since: SOURCES.tsv lists these."""
    collection, added = shared_data / "collection", {row[0] for row in _sources(shared_data)}
    listed = {}
    for entry in CATALOGUE.values():
        for path, digest in entry.known.items():
            assert path not in listed, f"{path} is in {entry.name} and {listed[path]}"
            listed[path] = entry.name
            if entry.name == "mwd-rain" and path in added:
                continue
            file = shared_data / path if path.startswith("peers/") else collection / path
            assert hashlib.sha256(file.read_bytes()).hexdigest() == digest, path


def test_files_whose_source_is_on_record_are_found_there(shared_data):
    rows = {row[0].rpartition(".")[0]: row for row in _sources(shared_data) if "." in row[0]}
    found = 0
    for entry in CATALOGUE.values():
        for mirror in entry.mirrors:
            for path in (path for path in entry.known if path.rpartition(".")[0] in rows):
                file, repository, commit, source, _ = rows[path.rpartition(".")[0]]
                assert (mirror.github, mirror.commit) == (repository, commit), path
                [(to, *_)] = entry.targets(f"archive/{source}")
                assert to.rpartition(".")[0] == file.rpartition(".")[0]
                found += 1
    assert found > 300


def test_lists_of_hashes_belong_to_an_entry():
    assert {path.stem for path in (REPO / "datasets" / "hashes").glob("*")} <= set(CATALOGUE)
    assert sum(bool(entry.known) for entry in CATALOGUE.values()) >= 15


def test_a_good_entry_is_good(tmp_path):
    entry = _load(tmp_path, GOOD)["a"]
    assert entry.rules[0].to == ("test/a/rainy/{n}.png",) and entry.mirrors[1].drive == "a" * 33


def _rule(**keys):
    return {"rules": [{"match": r"(?P<n>\d+)", "to": "test/a/rainy/{n}.png", **keys}]}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"licence": " "}, "licence: String should have at least 1 character"),
        ({"citation": ""}, "citation"),
        ({"version": ""}, "version"),
        ({"title": None}, "title"),
        ({"licenze": "MIT"}, "licenze"),
        ({"name": "b"}, "without 'name'"),
        ({"known": {}}, "'known'"),
        ({"kind": "video"}, "kind"),
        ({"count": "many"}, "count"),
        ({"count": 0}, "count"),
        ({"verify": "exact"}, "hashes/a.sha256"),
        ({"only_known": True}, "hashes/a.sha256"),
        ({"limit_gib": 0}, "limit_gib"),
        ({"rules": []}, "rules"),
        ({"mirrors": [{}]}, "mirrors.0: give exactly one"),
        ({"mirrors": [{"github": "who/what", "commit": "main"}]}, "mirrors.0.commit"),
        ({"mirrors": [{"github": "who/what", "commit": "012abc"}]}, "mirrors.0.commit"),
        ({"mirrors": [{"github": "https://github.com/who", "commit": "0123abc"}]}, "mirrors.0.github"),
        ({"mirrors": [{"github": "who/what", "commit": "0123abc", "files": ["../x"]}]}, "mirrors.0.files"),
        ({"mirrors": [{"drive": "https://drive.google.com/x"}]}, "mirrors.0.drive"),
        ({"mirrors": [{"urls": ["file:///etc/passwd"]}]}, "mirrors.0.urls"),
        ({"mirrors": [{"drive": "a" * 33, "size": 3}]}, "mirrors.0.size"),
        (_rule(match="(?P<n>"), "rules.0: match"),
        (_rule(match=""), "rules.0.match"),
        (_rule(to="test/a/rainy/{m}.png"), "'m' is not a named group"),
        (_rule(to="test/a/rainy/{n.x}.png"), "rules.0.to.0: String should match"),
        (_rule(to="test/a/rainy/{n!r}.png"), "rules.0.to.0: String should match"),
        (_rule(to="test/a/rainy/{n:0>999999999}.png"), "rules.0.to.0: String should match"),
        (_rule(to="../rainy/{n}.png"), "is not a place"),
        (_rule(to="test/../rainy/{n}.png"), "is not a place"),
        (_rule(to="/test/a/rainy/{n}.png"), "is not a place"),
        (_rule(to="test/a/input/{n}.png"), "is not a place"),
        (_rule(to="synthetic/a/rainy/{n}.png"), "is not a place for kind 'test'"),
        (_rule(to="test/{n}/rainy/x/y.png"), "is not a place"),
        (_rule(to="test/a/{side}/{n}.png", split=["clean"]), "rules.0.split: Tuple should have at least 2"),
        (_rule(split=["clean", "rainy"]), "needs {side}"),
        (_rule(to="test/a/{side}/{n}.png", split=["clean", "../x"]), "is not a place"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, change, says):
    table = {key: value for key, value in {**GOOD, **change}.items() if value is not None}
    with pytest.raises(CatalogueError) as problem:
        _load(tmp_path, table)
    assert says in str(problem.value)
    assert str(problem.value).startswith(f"{tmp_path / 'catalogue.toml'}: [a] ") and "\n" not in str(problem.value)


@pytest.mark.parametrize("name", ["Rain100H", "rain_100", "-a", "a--b", "../a", ""])
def test_names_are_plain(tmp_path, name):
    with pytest.raises(CatalogueError, match="name: String should match"):
        _load(tmp_path, GOOD, name)


def test_files_that_cannot_be_read_are_named(tmp_path):
    bad = tmp_path / "bad.toml"
    for content in (b"[a", b"\xff\xfe", b"a = 1"):
        bad.write_bytes(content)
        with pytest.raises(CatalogueError, match=re.escape(str(bad))):
            load_catalogue(bad)
    with pytest.raises(CatalogueError, match="cannot be read"):
        load_catalogue(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "line", ["abc  test/a/rainy/1.png", f"{'0' * 64} ../x.png", f"{'0' * 64}  /etc/passwd", f"{'0' * 64}  test/a/x.png"]
)
def test_a_damaged_list_of_hashes_is_named_by_line(tmp_path, line):
    path = tmp_path / "a.sha256"
    path.write_text(f"{'0' * 64}  test/a/rainy/1.png\n{line}\n")
    with pytest.raises(CatalogueError, match="line 2"):
        load_hashes(path)


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc_", min_size=1), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@settings(deadline=None, max_examples=50)
@given(
    key=st.sampled_from([*GOOD, "count", "note", "size", "drop", "exclude", "limit_gib", "verify", "only_known", "x"]),
    value=_json.filter(lambda value: "null" not in _toml(value)),
    inner=st.sampled_from([None, "match", "to", "split", "github", "commit", "files", "drive", "urls", "keep"]),
)
def test_any_value_gives_an_entry_or_one_clear_line(tmp_path_factory, key, value, inner):
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    table = dict(GOOD)
    if inner and key in ("rules", "mirrors"):
        table[key] = [{**GOOD[key][0], inner: value}]
    else:
        table[key] = value
    try:
        entry = _load(folder, table)["a"]
    except CatalogueError as error:
        assert "\n" not in str(error) and "[a]" in str(error)
    else:
        for rule in entry.rules:
            assert all("{" in to or "*" in to or is_target(to, entry.kind) for to in rule.to)


@settings(deadline=None, max_examples=40)
@given(at=st.floats(0, 1), cut=st.integers(0, 40), put=st.text(max_size=10))
def test_any_slip_of_the_pen_gives_a_catalogue_or_one_clear_line(tmp_path_factory, at, cut, put):
    text = (REPO / "datasets" / "catalogue.toml").read_text(encoding="utf-8")
    start = int(at * len(text))
    path = tmp_path_factory.getbasetemp() / "slip.toml"
    path.write_text(text[:start] + put + text[start + cut :], encoding="utf-8", errors="surrogatepass")
    try:
        assert load_catalogue(path)
    except CatalogueError as error:
        assert "\n" not in str(error) and str(path) in str(error)


def _done(command, folder, **environment):
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


@pytest.mark.slow
def test_the_catalogue_is_in_the_wheel(tmp_path):
    """Colab installs from git, without a checkout to find datasets/ in."""
    pytest.importorskip("setuptools")
    source = tmp_path / "source"
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        source.mkdir(exist_ok=True)
        shutil.copy(REPO / name, source)
    shutil.copytree(REPO / "ttlkit", source / "ttlkit", ignore=shutil.ignore_patterns("__pycache__"))
    (source / "notebooks").mkdir()
    (source / "datasets" / "fetched").mkdir(parents=True)
    (source / "datasets" / "fetched" / "private.png").write_bytes(b"x")
    shutil.copy(REPO / "datasets" / "catalogue.toml", source / "datasets")
    shutil.copytree(REPO / "datasets" / "hashes", source / "datasets" / "hashes")
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "--no-input"]
    options = ["--no-deps", "--no-index", "--no-build-isolation"]
    _done([*pip, "wheel", *options, "-w", str(tmp_path), str(source)], tmp_path)
    _done([*pip, "install", *options, "--target", str(site), str(next(tmp_path.glob("*.whl")))], tmp_path)
    code = "import ttlkit.data.public.catalogue as c; all = c.load_catalogue(); "
    code += "print(c.catalogue_path(), *all, *all['kodak'].known)"
    done = _done([sys.executable, "-P", "-c", code], tmp_path, PYTHONPATH=str(site))
    words = done.stdout.split()
    assert words[0] == str(site / "ttlkit" / "datasets" / "catalogue.toml")
    assert set(CATALOGUE) <= set(words) and "real/clean/kodak_kodim01.png" in words
    assert not list(site.rglob("private.png"))
