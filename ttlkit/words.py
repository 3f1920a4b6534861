"""What people type, and what they are told: lists of names, what was meant, and commands that end in one line."""

import difflib
import errno
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


class SettingsError(ValueError):
    """A name, a parameter or the order of stages is wrong; the message says how to put it right."""


def unknown(name: str, known: Iterable[str], what: str) -> str:
    """The line that says so: the nearest known name, or the one with these initials, then all of them."""
    known = list(known)
    near = difflib.get_close_matches(name, known, 1)
    near = near or [full for full in known if "_" in full and "".join(part[:1] for part in full.split("_")) == name]
    hint = f"; did you mean '{near[0]}'?" if near else "."
    return f"unknown {what}: '{name}'{hint} Known: {', '.join(known)}"


def check_name(name: str, known: Iterable[str], what: str) -> None:
    """Raise SettingsError unless `name` is one of `known`; `what` it is stands in the message."""
    known = list(known)
    if name not in known:
        raise SettingsError(unknown(name, known, what))


def check_run(name: str) -> None:
    """Raise SettingsError unless `name` can be that of a run: of a folder below outputs/."""
    if not name or Path(name).name != name or name.startswith("."):
        raise SettingsError(f"run = '{name}' must be a plain folder name below outputs/")


def split_names(text: str) -> list[str]:
    """'a, b' to ['a', 'b']."""
    return [name.strip() for name in text.split(",") if name.strip()]


def as_command(call: Callable[[], int], leads: bool = True) -> int:
    """call() as a command: what the user can put right ends as one line and exit code 1, anything else as a traceback.

    Of several processes one `leads`; the others meet the same problem and wait to be ended, so that it is said once.
    """
    _escape_controls(sys.stdout)
    _escape_controls(sys.stderr)
    try:
        return call()
    except KeyboardInterrupt as stop:
        if leads:
            print(f"\nstopped; {str(stop) or 'the same command goes on from here'}", file=sys.stderr)
        return 130
    except (ValueError, RuntimeError, OSError) as error:
        if isinstance(error, BrokenPipeError) or not (isinstance(error, OSError) or _ours(error)):
            raise
        if not leads:
            time.sleep(30)
        line = _line(error).replace("\n", "\\n")  # of a file's name
        print(f"ttlkit: {line}", file=sys.stderr, flush=True)
        return 1


def _escape_controls(stream: Any) -> None:
    """Have a stream print control characters as escapes: a terminal obeys them, and names of files may hold them.

    Line ends stay, and the \\r in front of a progress bar. What its encoding does not know becomes an escape too.
    """
    if "write" not in vars(stream):  # not done before
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # PYTHONIOENCODING may know fewer characters than names have
        write = stream.write
        stream.write = lambda text: write("".join(
            c if c.isprintable() or c in "\n\t" or (c, i) == ("\r", 0) else ascii(c)[1:-1] for i, c in enumerate(text)
        ))  # fmt: skip


# The way out where the system says no.
WAYS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free space there, or choose another folder"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "allow it, or choose another folder"),
    errno.ENOENT: "look whether it is spelt right",
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.EEXIST), "move what is in the way, or choose another folder"),
}


def _line(error: Exception) -> str:
    """What is wrong; of the system's errors as `FILE: Permission denied; the way out`."""
    if _ours(error) or not isinstance(error, OSError):
        return str(error)
    where = error.filename2 or error.filename or ("what is printed here" if error.errno == errno.ENOSPC else "")
    if not where and error.errno == errno.ENOENT:  # os.getcwd() alone names nothing
        return "the working directory is gone; change to one that exists"
    if not where:  # of a connection
        return str(error)
    return f"{where}: {error.strerror}; {WAYS.get(error.errno or 0, 'look at it, and try again')}"


def _ours(error: Exception) -> bool:
    return type(error).__module__.startswith("ttlkit")
