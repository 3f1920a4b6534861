"""The catalogue of public data sets: what they are, where they are from, and where each file belongs."""

import re
import tomllib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self
from urllib.parse import quote

from pydantic import BeforeValidator, Field, StringConstraints, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from ttlkit import machine

# kind -> the folders of a collection (layout in datasets/README.md) that a set of that kind may fill
FOLDERS = {
    "real": "real/rainy",
    "clean": "real/clean",
    "synthetic": "synthetic/[a-z0-9-]+/(rainy|clean)",
    "test": "test/[a-z0-9-]+/(rainy|clean|mask|valid)",
    "val": "val/[a-z0-9-]+/(rainy|clean|mask|valid)",
    "streaks": "streaks",
    "weights": "peers",
}
GITHUB_ARCHIVE = "https://codeload.github.com/{}/zip/{}"
GITHUB_RAW = "https://raw.githubusercontent.com/{}/{}/{}"
DRIVE_FILE = "https://drive.google.com/uc?id="
DRIVE_FOLDER = "https://drive.google.com/drive/folders/"

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Template = Annotated[str, Field(pattern=r"^([^{}]|\{[a-z]+(:0>[0-9])?\})+$")]
DriveId = Annotated[str, Field(pattern="^[A-Za-z0-9_-]{25,60}$")]
InnerPath = Annotated[str, Field(pattern="^[.]?[A-Za-z0-9_ +-]+([./][A-Za-z0-9_ +-]+)*$")]
Url = Annotated[str, Field(pattern="^https?://[A-Za-z0-9_.:-]+/[!-~]*[^/!-,]$")]


class CatalogueError(ValueError):
    """The catalogue or a list of hashes is wrong; the message names the file, the set and the key."""


@dataclass(frozen=True, config={"extra": "forbid"})
class Rule:
    """Files whose path in the source ends in the regular expression `match` become the files `to`, one or several.

    `match` starts at a folder's border, capitals do not matter, its named groups fill the `{name}` in `to`
    ({number:0>3} pads with zeros). `split` names the sides of a side-by-side picture from left to right; `{side}`
    says where each goes. A `*` in `to` stands for every file of that pattern in the set's rainy/ that has no
    partner yet: one clean picture for many rainy ones.
    """

    match: Text
    to: Annotated[tuple[Template, ...], BeforeValidator(lambda to: [to] if isinstance(to, str) else to)]
    split: Annotated[tuple[str, ...], Field(min_length=2)] = ()

    def targets(self, groups: Mapping[str, str] | None = None) -> list[tuple[str, int]]:
        """(path in the collection, side from the left) for the named groups of a match; by default each is an x."""
        groups = dict.fromkeys(re.compile(self.match).groupindex, "x") if groups is None else groups
        sides = enumerate(self.split or ("",))
        return [(template.format(**{"side": side, **groups}), i) for i, side in sides for template in self.to]

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            examples = self.targets()
            if not 0 < len(examples) == len(dict(examples)):
                raise ValueError("to: no place, or one for two files; a split picture needs {side}")
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"match: not a regular expression ({error})") from None
        except KeyError as error:
            raise ValueError(f"to: {error} is not a named group of match") from None
        return self


@dataclass(frozen=True, config={"extra": "forbid"})
class Mirror:
    """One place that has the whole set: a GitHub commit (all of it or `files`), a Drive file or folder, or URLs."""

    github: Annotated[str, Field(pattern="^[A-Za-z0-9_-]+/[A-Za-z0-9_.-]+$")] = ""
    commit: Annotated[str, Field(pattern="^[0-9a-f]{7,40}$")] = ""  # a branch would change under our feet
    files: tuple[InnerPath, ...] = ()
    drive: DriveId = ""
    drive_folder: DriveId = ""
    urls: tuple[Url, ...] = ()
    keep: bool = False  # several sets come from this download: do not delete it after the first

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(map(bool, (self.github, self.drive, self.drive_folder, self.urls))) != 1:
            raise ValueError("give exactly one of github, drive, drive_folder, urls")
        if bool(self.github) != bool(self.commit) or (self.files and not self.github):
            raise ValueError("commit (needed) and files belong to github")
        return self

    @property
    def place(self) -> str:
        """Whose servers it is on."""
        return "GitHub" if self.github else "web" if self.urls else "Google Drive"

    @property
    def downloads(self) -> dict[str, str]:
        """Path below the mirror's own folder -> URL."""
        if self.drive_folder:
            return {"folder": DRIVE_FOLDER + self.drive_folder}
        if not self.files and not self.urls:
            url = DRIVE_FILE + self.drive if self.drive else GITHUB_ARCHIVE.format(self.github, self.commit)
            return {"archive.zip": url}
        raw = {path: GITHUB_RAW.format(self.github, self.commit, quote(path)) for path in self.files}
        return raw or {PurePosixPath(url.split("?")[0]).name: url for url in self.urls}

    @property
    def label(self) -> str:
        """Words for messages."""
        first, *more = self.downloads.values()
        return f"{first} and {len(more)} more" if more else first


@dataclass(frozen=True, config={"extra": "forbid"})
class DataSet:
    """One entry of the catalogue; `known` is its sha256 by path in the collection, from datasets/hashes/."""

    name: Annotated[str, Field(pattern="^[a-z0-9]+(-[a-z0-9]+)*$")]
    title: Text
    version: Text
    kind: Literal["real", "clean", "synthetic", "test", "val", "streaks", "weights"]
    citation: Text
    licence: Text  # as the source states it
    rules: Annotated[tuple[Rule, ...], Field(min_length=1)]
    mirrors: tuple[Mirror, ...] = ()
    count: Annotated[int, Field(ge=1)] | None = None  # pairs, or files where there are none; None: no source says
    size: str = ""
    note: str = ""
    drop: Text = "the archive of one of its mirrors, or the folder that was in it"
    verify: Literal["exact", "record"] = "record"  # exact: bytes must be `known`; record: those of the first download
    only_known: bool = False  # take the files listed in `known` (without suffix) and no others
    exclude: tuple[str, ...] = ()  # names, without suffix, that are left out; `note` says why
    limit_gib: Annotated[float, Field(gt=0, le=1024)] = 8.0  # what it may take unpacked
    known: dict[str, str] = Field(default_factory=dict, repr=False)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.verify == "exact" or self.only_known) and not self.known:
            raise ValueError(f"verify = 'exact' and only_known need hashes/{self.name}.sha256")
        for place in [*self.known, *(place for rule in self.rules for place, _ in rule.targets())]:
            if not is_target(place.replace("*", "x"), self.kind):
                raise ValueError(f"'{place}' is not a place for kind '{self.kind}' in a collection")
        return self

    def targets(self, path: str) -> list[tuple[str, int, int]]:
        """(path in the collection, side, sides) for a file of the source, from the first rule that matches.

        `side` counts from the left in a picture of `sides` side by side. What lies as in a collection already,
        `.../rainy/001.png`, is taken as it is where `known` has it.
        """
        ends, stems = self._known
        as_known = ends.get("/".join(path.split("/")[-2:]))
        if as_known:
            return [(as_known, 0, 1)]
        for rule in self.rules:
            found = re.fullmatch(rf"(?:.*/)?(?:{rule.match})", path, re.IGNORECASE)
            if found:
                return [
                    (to, side, len(rule.split) or 1)
                    for to, side in rule.targets(found.groupdict(""))
                    if PurePosixPath(to).stem not in self.exclude
                    and (not self.only_known or to.rpartition(".")[0] in stems)
                ]
        return []

    @cached_property
    def _known(self) -> tuple[dict[str, str], set[str]]:
        """The known paths by folder and name, and without suffix."""
        ends = {"/".join(path.split("/")[-2:]): path for path in self.known}
        return ends, {path.rpartition(".")[0] for path in self.known}

    @property
    def notice(self) -> str:
        """What is printed once, when the set is new: whom to cite, and what its owners allow."""
        note = f"\n  note: {self.note}" if self.note else ""
        return f"{self.title} ({self.version})\n  cite: {self.citation}\n  licence: {self.licence}{note}"


def is_target(path: str, kind: str | None = None) -> bool:
    """Whether `path` is a file's place in a collection (in the folders of one kind, or of any)."""
    folders = "|".join(FOLDERS.values()) if kind is None else FOLDERS[kind]
    good = re.fullmatch(rf"(?:{folders})/(?![. ])[\w .()+,@&=-]+(?<![. ])", path)
    return good is not None and len(path.rpartition("/")[2].encode()) <= 240  # disks take 255, and count bytes


def catalogue_path() -> Path:
    """datasets/catalogue.toml of the checkout, or the copy that was installed with the package."""
    return machine.shipped("datasets") / "catalogue.toml"


def load_catalogue(path: Path | None = None) -> dict[str, DataSet]:
    """Read and check a catalogue, by default ttlkit's own; `hashes/<set>.sha256` beside it are read too.

    Raises CatalogueError, one line, for whatever is wrong: syntax, an unknown key, a path that leaves the collection.
    """
    path = path or catalogue_path()
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        for name, table in tables.items():
            if not isinstance(table, dict) or {"name", "known"} & table.keys():
                raise CatalogueError(f"{path}: [{name}] must be a table of keys, without 'name' and 'known'")
            table |= {"name": name, "known": load_hashes(path.parent / "hashes" / f"{name}.sha256")}
        return TypeAdapter(dict[str, DataSet]).validate_python(tables)
    except ValidationError as error:
        first = error.errors()[0]
        name, *keys = map(str, first["loc"])
        words = f"{path}: [{name}] {'.'.join(keys) or 'whole'}: {first['msg'].removeprefix('Value error, ')}"
        raise CatalogueError(" ".join(words.split())) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise CatalogueError(f"{path}: cannot be read ({error})") from None


def load_hashes(path: Path) -> dict[str, str]:
    """Read a `sha256sum` list: path in the collection -> sha256; empty where there is no such file."""
    found: dict[str, str] = {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    for number, line in enumerate(lines, 1):
        parts = re.fullmatch(r"([0-9a-f]{64}) [ *](\S.*)", line)
        if not parts or not is_target(parts[2]) or parts[2] in found:
            problem = "is not '<sha256>  <path in a collection>', or repeats one; remove the file to start afresh"
            raise CatalogueError(f"{path}: line {number} {problem}")
        found[parts[2]] = parts[1]
    return found
