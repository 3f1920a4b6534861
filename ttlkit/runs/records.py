"""What a finished stage is known by: its record in DONE.json, hashes of what it read, and what has changed since."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ttlkit import files
from ttlkit.data import cache
from ttlkit.data.image_files import SUFFIXES
from ttlkit.runs import code
from ttlkit.words import split_names

DONE = "DONE.json"
STOOD_IN = "released "  # before the hash of a released file that an earlier stage of the run has not replaced yet


def read_done(folder: Path) -> dict[str, Any]:
    """DONE.json of a stage folder; {} where it is missing, empty, cut short or one bit of it has changed."""
    done = files.read_json(folder / DONE)
    facts = {k: v for k, v in done.items() if k != "checksum"} if isinstance(done, dict) else {}
    whole = {"inputs", "files"} <= facts.keys() and done.get("checksum") == files.sha256_of(facts)
    return facts if whole else {}


def stand_ins_of(inputs: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The earlier stages of a stage's inputs for which released files stood in: name to file to hash."""
    found = {
        name: {file: digest.removeprefix(STOOD_IN) for file, digest in made.items() if digest.startswith(STOOD_IN)}
        for name, made in inputs["earlier stages"].items()
    }
    return {name: taken for name, taken in found.items() if taken}


def difference(before: Any, now: Any, ignored: tuple[str, ...] = ()) -> str:
    """Why a stage with the inputs `before` has to run again, in words; '' where `now` is the same."""
    if not isinstance(before, dict) or before.keys() != now.keys():
        return "it was made by an older ttlkit"
    for part in now:
        if part in ignored or before[part] == now[part]:
            continue
        if not isinstance(now[part], dict):
            return f"its {part} has changed"
        old = before[part] if isinstance(before[part], dict) else {}
        names = sorted(name for name in old.keys() | now[part].keys() if old.get(name) != now[part].get(name))
        if part == "settings":
            changed = ", ".join(f"{name} {old.get(name)} -> {now[part].get(name)}" for name in names)
            return f"its settings have changed ({changed})"
        if part == "earlier stages":
            again = " again" if any(old.get(name) and name not in stand_ins_of({part: old}) for name in names) else ""
            return f"{', '.join(names)} {'has' if len(names) == 1 else 'have'} been made{again}"
        named = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        where = {"images": "images in ", "files": "files of ", "code": ""}[part]
        return f"{where}{named} {'has' if part == 'code' and len(names) == 1 else 'have'} changed"
    return ""


def other_code(folder: Path) -> str:
    """What of the code has changed since the stage in this folder was made, in words; '' where nothing has."""
    stage, inputs = folder.name.partition("-")[0], read_done(folder).get("inputs")
    now = {"code": code.of_notebook(stage), "notebook": code.notebook_hash(stage)} if inputs else {}
    return difference({part: inputs.get(part) for part in now}, now) if inputs else ""


def folder_hash(folder: Path) -> str:
    """Hash over names and whole contents of every image below a folder; a file that has not moved is not read again."""
    found, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(place))
        folders[:] = [f for f in folders if f[0] != "." and os.path.realpath(os.path.join(place, f)) not in seen]
        found += [Path(place, name) for name in names if name[0] != "." and name.lower().endswith(SUFFIXES)]
    listed = [[path.relative_to(folder).as_posix(), cache.content_hash(path)] for path in sorted(found)]
    return files.sha256_of(listed)[:16]


def named_files(text: str, several: bool) -> dict[str, str]:
    """Name to hash of the file that a parameter names, or of `several` files and folders of weights between commas."""
    found: dict[str, str] = {}
    for given in (Path(part).expanduser() for part in (split_names(text) if several else [text] if text else [])):
        inside = sorted(p for p in given.glob("*") if p.suffix in (".pth", ".safetensors")) if given.is_dir() else []
        for path in inside or [given]:
            digest = cache.content_hash(path)[:16] if path.is_file() else "missing"
            found[path.name] = found.get(path.name, "") + digest
    return found
