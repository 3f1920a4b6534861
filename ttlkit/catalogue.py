"""The catalogue of public data sets: what they are, where they are from, and where each file belongs."""

from __future__ import annotations

import re
import string
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

# kind -> the folders of a collection (layout in datasets/README.md) that a set of that kind may fill
FOLDERS = {
    "real": r"real/rainy",
    "clean": r"real/clean",
    "synthetic": r"synthetic/[a-z0-9-]+/(rainy|clean)",
    "test": r"test/[a-z0-9-]+/(rainy|clean|mask)",
    "streaks": r"streaks",
    "weights": r"peers",
}
FORBID: dict[str, Any] = {"extra": "forbid"}


class CatalogueError(ValueError):
    """The catalogue or a list of hashes is wrong; the message names the file, the set and the key."""


@dataclass(frozen=True)
class Rule:
    r"""Files whose path in the source ends in the regular expression `match` become the files `to`.

    `match` starts at a folder's border, capitals do not matter, its named groups fill the `{name}` in `to`
    ({number:0>3} pads with zeros). `split` names the sides of a side-by-side picture from left to right; `{side}`
    says where each goes. A `*` in `to` stands for every file of that pattern in the set's rainy/ that has no
    partner yet: one clean picture for many rainy ones.
    """

    __pydantic_config__: ClassVar = FORBID
    match: str
    to: str | tuple[str, ...]
    split: tuple[str, ...] = ()

    @property
    def templates(self) -> tuple[str, ...]:
        """`to`, always as a tuple."""
        return (self.to,) if isinstance(self.to, str) else self.to

    def targets(self, path: str, side: str = "") -> list[str]:
        """Where the file `path` of the source goes in the collection; empty when the rule does not match."""
        found = re.fullmatch(rf"(?:.*/)?(?:{self.match})", path, re.IGNORECASE)
        if not found:
            return []
        groups = {name: value or "" for name, value in found.groupdict().items()}
        return [template.format(**groups, side=side) for template in self.templates]


@dataclass(frozen=True)
class Mirror:
    """One place that has the whole set: a GitHub commit (all of it or `files`), a Drive file or folder, or URLs."""

    __pydantic_config__: ClassVar = FORBID
    github: str = ""
    commit: str = ""
    files: tuple[str, ...] = ()
    drive: str = ""
    drive_folder: str = ""
    urls: tuple[str, ...] = ()
    keep: bool = False  # several sets come from this download: do not delete it after the first

    @property
    def place(self) -> str:
        """Whose servers it is on."""
        return "GitHub" if self.github else "web" if self.urls else "Google Drive"

    @property
    def label(self) -> str:
        """Words for messages."""
        if self.github:
            return f"GitHub {self.github} @{self.commit[:7]}"
        if self.drive or self.drive_folder:
            return f"Google Drive {self.drive or self.drive_folder}"
        return self.urls[0] if len(self.urls) == 1 else f"{self.urls[0]} and {len(self.urls) - 1} more"


@dataclass(frozen=True)
class DataSet:
    """One entry of the catalogue; `known` is its sha256 by path in the collection, from datasets/hashes/."""

    __pydantic_config__: ClassVar = FORBID
    title: str
    version: str
    kind: Literal["real", "clean", "synthetic", "test", "streaks", "weights"]
    citation: str
    licence: str  # as the source states it
    rules: tuple[Rule, ...]
    mirrors: tuple[Mirror, ...] = ()
    count: int | None = None  # pairs, or files where there are no pairs; None where no source says
    size: str = ""
    note: str = ""
    drop: str = "the archive of one of its mirrors, or the folder that was in it"
    verify: Literal["exact", "record"] = "record"  # exact: bytes must be `known`; record: those of the first download
    only_known: bool = False  # take the files listed in `known` (without suffix) and no others
    exclude: tuple[str, ...] = ()  # names, without suffix, that are left out; `note` says why
    limit_gib: float = 8.0  # what it may take unpacked
    name: str = field(default="", kw_only=True)
    known: Mapping[str, str] = field(default_factory=dict, kw_only=True, repr=False)

    def targets(self, path: str) -> list[tuple[str, str]]:
        """(path in the collection, side) for a file of the source, from the first rule that matches.

        What lies as in a collection already, `.../rainy/001.png`, is taken as it is where `known` has it.
        """
        as_known = self._known_ends.get("/".join(PurePosixPath(path).parts[-2:]))
        if as_known:
            return [(as_known, "")]
        for rule in self.rules:
            found = [(to, side) for side in rule.split or ("",) for to in rule.targets(path, side)]
            if found:
                return [(to, side) for to, side in found if self._wanted(to)]
        return []

    @cached_property
    def _known_ends(self) -> dict[str, str]:
        return {"/".join(path.split("/")[-2:]): path for path in self.known}

    @cached_property
    def _known_stems(self) -> set[str]:
        return {str(PurePosixPath(path).with_suffix("")) for path in self.known}

    def _wanted(self, target: str) -> bool:
        stem = str(PurePosixPath(target).with_suffix(""))
        return (not self.only_known or stem in self._known_stems) and PurePosixPath(target).stem not in self.exclude

    @property
    def notice(self) -> str:
        """What is printed once, when the set is new: whom to cite, and what its owners allow."""
        note = f"\n  note: {self.note}" if self.note else ""
        return f"{self.title} ({self.version})\n  cite: {self.citation}\n  licence: {self.licence}{note}"


def catalogue_path() -> Path:
    """datasets/catalogue.toml of the checkout, or the copy that was installed with the package."""
    here = Path(__file__).resolve().parent
    for folder in (here.parent / "datasets", here / "datasets"):
        if (folder / "catalogue.toml").is_file():
            return folder / "catalogue.toml"
    raise CatalogueError(f"{here / 'datasets' / 'catalogue.toml'}: no such file; install ttlkit again")


def load_catalogue(path: Path | None = None) -> dict[str, DataSet]:
    """Read and check a catalogue, by default ttlkit's own; `hashes/<set>.sha256` beside it are read too.

    Raises CatalogueError, one line, for whatever is wrong: syntax, an unknown key, a path that leaves the collection.
    """
    path = path or catalogue_path()
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise CatalogueError(f"{path}: not TOML ({error or 'nested too deeply'})") from None
    return {name: _entry(path, name, table) for name, table in tables.items()}


def _entry(path: Path, name: str, table: Any) -> DataSet:
    from pydantic import TypeAdapter, ValidationError

    def wrong(problem: str) -> CatalogueError:
        return CatalogueError(" ".join(f"{path}: [{name}] {problem}".split()))

    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise wrong("name: only a-z, 0-9 and single '-' between them")
    if not isinstance(table, dict):
        raise wrong("must be a table of keys")
    for key in ("name", "known"):
        if key in table:
            raise wrong(f"{key}: unknown key")
    try:
        entry = TypeAdapter(DataSet).validate_python(table)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if part not in ("str", "tuple[str, ...]"))
        raise wrong(f"{key}: {first['msg']}") from None
    known = load_hashes(path.parent / "hashes" / f"{name}.sha256")
    entry = replace(entry, name=name, known=known)
    problem = _problem(entry)
    if problem:
        raise wrong(problem)
    return entry


def load_hashes(path: Path) -> dict[str, str]:
    """Read a `sha256sum` list: path in the collection -> sha256; empty where there is no such file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        parts = re.fullmatch(r"([0-9a-f]{64}) [ *](\S.*)", line)
        if not parts:
            raise CatalogueError(f"{path}: line {number} is not '<sha256>  <path>'; remove the file to start afresh")
        if not is_target(parts[2]) or parts[2] in found:
            raise CatalogueError(f"{path}: line {number}: {parts[2]} is listed twice or outside the collection layout")
        found[parts[2]] = parts[1]
    return found


def is_target(path: str, kind: str | None = None) -> bool:
    """Whether `path` is a file's place in a collection (in the folders of one kind, or of any)."""
    folders = "|".join(FOLDERS.values()) if kind is None else FOLDERS[kind]
    name = r"(?![. ])[\w .()+,@&=-]{1,150}(?<![. ])"
    return re.fullmatch(rf"(?:{folders})/{name}", path) is not None


def _problem(entry: DataSet) -> str:
    for key in ("title", "version", "citation", "licence", "drop"):
        if not getattr(entry, key).strip():
            return f"{key}: must not be empty"
    if entry.count is not None and entry.count < 1:
        return "count: must be 1 or more; leave it out where no source says"
    if not 0 < entry.limit_gib <= 1024:  # nan included
        return "limit_gib: must be between 0 and 1024"
    if not entry.rules:
        return "rules: at least one is needed"
    if (entry.verify == "exact" or entry.only_known) and not entry.known:
        return f"verify = 'exact' and only_known need hashes/{entry.name}.sha256"
    outside = [path for path in entry.known if not is_target(path, entry.kind)]
    if outside:
        return f"hashes/{entry.name}.sha256: {outside[0]} is not a place for kind '{entry.kind}'"
    for i, mirror in enumerate(entry.mirrors):
        problem = _mirror_problem(mirror)
        if problem:
            return f"mirrors.{i}: {problem}"
    for i, rule in enumerate(entry.rules):
        problem = _rule_problem(rule, entry.kind)
        if problem:
            return f"rules.{i}.{problem}"
    return ""


def _mirror_problem(mirror: Mirror) -> str:
    given = [key for key in ("github", "drive", "drive_folder", "urls") if getattr(mirror, key)]
    if len(given) != 1:
        return "give exactly one of github, drive, drive_folder, urls"
    if mirror.github:
        if not re.fullmatch(r"[\w-]+/[\w.-]+", mirror.github, re.ASCII):
            return f"github: '{mirror.github}' is not owner/name"
        if not re.fullmatch(r"[0-9a-f]{7,40}", mirror.commit):
            return f"commit: '{mirror.commit}' is not 7 to 40 hex digits; a branch would change under our feet"
    elif mirror.commit or mirror.files:
        return "commit and files belong to github"
    for path in mirror.files:
        if not re.fullmatch(r"[\w.-][\w. /+-]*", path, re.ASCII) or ".." in path or "//" in path:
            return f"files: '{path}' is not a path inside the repository"
    for key in ("drive", "drive_folder"):
        if getattr(mirror, key) and not re.fullmatch(r"[\w-]{25,60}", getattr(mirror, key), re.ASCII):
            return f"{key}: '{getattr(mirror, key)}' does not look like an id of Google Drive"
    for url in mirror.urls:
        if not re.fullmatch(r"https?://[\w.:-]+/[!-~]*[^/!-,]", url, re.ASCII):
            return f"urls: '{url}' is not the http(s) address of a file"
    return ""


def _rule_problem(rule: Rule, kind: str) -> str:
    try:
        groups = set(re.compile(rf"(?:.*/)?(?:{rule.match})", re.IGNORECASE).groupindex)
    except (re.error, OverflowError, RecursionError) as error:
        return f"match: not a regular expression ({error})"
    if not rule.match or "side" in groups or len(set(rule.split)) != len(rule.split) or len(rule.split) == 1:
        return "match: must not be empty or have a group 'side'; split: two sides or more, none of them twice"
    if not rule.templates:
        return "to: must not be empty"
    for template in rule.templates:
        try:
            fields = [f for f in string.Formatter().parse(template) if f[1] is not None]
        except ValueError as error:
            return f"to: {error}"
        for _, name, spec, conversion in fields:
            if name not in groups | ({"side"} if rule.split else set()):
                return f"to: {{{name}}} is not a named group of match"
            if conversion or not re.fullmatch(r"(0>\d)?", spec or ""):
                return f"to: only {{{name}}} or {{{name}:0>3}}"
        if rule.split and "side" not in {f[1] for f in fields}:
            return "to: a split picture needs {side}"
        for side in rule.split or ("x",):
            example = template.format(**dict.fromkeys(groups, "x"), side=side).replace("*", "x")
            if not is_target(example, kind):
                return f"to: '{template}' is not a place for kind '{kind}' in a collection"
    return ""
