"""The command line: `ttlkit reproduce | sweep | gap | derain | export | data | report | site`. Only parsing."""

import argparse
import gc
import os
import sys
from pathlib import Path
from typing import Any

from ttlkit import __version__, commands
from ttlkit.runs.settings import HELP
from ttlkit.words import SettingsError, as_command


def main(arguments: list[str] | None = None) -> int:
    """Run a command; problems that the user can solve end as one line and exit code 1."""

    def call() -> int:
        chosen = build_parser().parse_args(arguments)
        if os.path.expanduser(os.environ.get("TTLKIT_CACHE", "")).startswith("~"):
            raise SettingsError(f"TTLKIT_CACHE = {os.environ['TTLKIT_CACHE']}: no such user; give a folder, or off")
        try:
            return chosen.call(chosen)
        except KeyboardInterrupt:
            if getattr(chosen, "overwrite", False):
                raise KeyboardInterrupt("the same command begins again, since --overwrite replaces all") from None
            raise

    try:
        code = as_command(call)
    except BrokenPipeError:  # of `ttlkit data list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    if arguments is None:
        gc.freeze()  # or Python, leaving, searches all of torch for garbage: half a second
    return code


def build_parser() -> argparse.ArgumentParser:
    """All commands and options; imports nothing heavy, so --help is quick."""
    parser = argparse.ArgumentParser("ttlkit", description="Single-image deraining by task transfer learning.")
    parser.add_argument("--version", action="version", version=__version__)
    known = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, call: Any, words: str, within: Any = known) -> argparse.ArgumentParser:
        made = within.add_parser(name, help=words)
        made.set_defaults(call=call)
        return made

    made = command("reproduce", commands.reproduce, "run all stage notebooks and write the report")
    _add_settings(made, *commands.OF_A_RUN, "run", "seed", "n_pairs")
    _add_accept_code(made)
    made.add_argument("--dry-run", action="store_true", help="say which stages would run, and why; run nothing")

    made = command("sweep", commands.sweep, "run the chain over seeds and numbers of pairs: one table out")
    made.add_argument("name", help="of the folder below outputs/ with the table; runs are <name>-seed0-pairs10 ...")
    _add_settings(made, *commands.OF_A_RUN)
    made.add_argument("--seeds", default="0,1,2", help="default: 0,1,2")
    made.add_argument("--n-pairs", default="10,50,200", help="default: 10,50,200")
    _add_accept_code(made)
    made.add_argument("--slurm", metavar="PARTITION", help="a SLURM job for each seed; 'local': processes here")
    made.add_argument("--hours", type=int, default=12, help="time limit of a SLURM job (default: 12)")

    made = command("gap", commands.gap, "how far apart two folders of images are, feature by feature")
    made.add_argument("a", metavar="A", type=_path, help="a folder of images, such as your synthetic rain")
    made.add_argument("b", metavar="B", type=_path, help="the other, such as real rain")
    made.add_argument("--out", type=_path, help="folder for the report (default: outputs/gap-A-B)")
    made.add_argument("--images", type=_count, help="most images of a folder, evenly spread (default: all)")
    made.add_argument("--equalise", action="store_true", help="measure the middle only, at 256 px and JPEG quality 75")
    made.add_argument("--teacher", type=_path, help="a recognition teacher.safetensors: compare what it sees too")
    made.add_argument("--seed", type=_seed, default=0, help=HELP["seed"])

    made = command("derain", commands.derain, "restore photographs: files, folders, patterns")
    made.add_argument(
        "paths", nargs="+", metavar="IN [OUT]", type=_not_empty, help="a file, a folder or a pattern in quotes, or "
        "several; the last of several is OUT if it is new; only --out makes a file or photographs that exist OUT "
        "(default: IN-derained)",
    )  # fmt: skip
    made.add_argument("--out", type=_path, help="file or folder to write, so that every path is an IN")
    made.add_argument("--overwrite", action="store_true", help="replace files that exist (default: leave them)")
    _add_weights(made)
    made.add_argument("--strength", type=float, default=1.0, help="0: as it was, 1: as restored, at most 1.5")
    made.add_argument("--device", choices=("cpu", "cuda"), help="default: the best there is")
    made.add_argument("--engine", choices=("torch", "onnx", "openvino"), help="default: as the weights need it")
    made.add_argument("--tile", type=int, help="side of the tiles in pixels, a multiple of 16 (default: by size)")
    made.add_argument(
        "--compare", action="store_true", help="write sheets with before and after: compare-01-derained.jpg"
    )

    made = command("export", commands.export, "write a restorer for ONNX Runtime, OpenVINO or a browser")
    made.add_argument("target", metavar="OUT.onnx|OUT.xml|OUT.html", type=_path)
    _add_weights(made)

    data = known.add_parser("data", help="list and fetch public sets, check, build or show a collection")
    actions = data.add_subparsers(required=True, metavar="ACTION")
    into: Any = {"type": _path, "help": "collection to look in, or to put sets into (default: datasets/fetched)"}
    made = command("list", commands.data_list, "public sets in datasets/catalogue.toml, and which are here", actions)
    made.add_argument("--into", **into)
    made = command("fetch", commands.data_fetch, "download sets, verify them, and put them into a collection", actions)
    made.add_argument("names", nargs="+", metavar="NAME", help="as `ttlkit data list` shows them")
    made.add_argument("--into", **into)
    made.add_argument("--drop", type=_path, help="archive or folder that you have (default: datasets/drop/NAME)")
    made.add_argument("--accept-new-hashes", action="store_true", help="take other bytes than those on record")
    made = command("check", commands.data_check, "files, pairs, duplicates, and leaks from training into test", actions)
    made.add_argument("path", nargs="?", default="pocket", help="'pocket' or a folder (default: pocket)")
    made.add_argument("--against", type=_path, help="a folder of test scenes that PATH must not show")
    made.add_argument("--json", type=_path, metavar="FILE", help="write the report as JSON too ('-': only that, here)")
    made.add_argument("--ignore", default="", metavar="KINDS", help="leave out findings, such as grey,tiny")
    for name, words in (("build", "generate the pocket collection"), ("show", "what a collection holds")):
        made = command(name, commands.data_show, words, actions)
        made.add_argument("path", nargs="?", default="pocket", help="'pocket' or a folder (default: pocket)")
        made.add_argument("--profile", default="pocket", help="size of the pocket collection")
        made.set_defaults(build=name == "build")
    made = command(
        "cache", commands.data_cache, "what the cache of images and answers holds; --clear empties it", actions
    )
    made.add_argument("--clear", action="store_true", help="empty it")

    made = command("report", commands.report, "write report.html of a run again")
    made.add_argument("run", help="name of the folder below outputs/")

    made = command("site", commands.site, "build a site of a run: lessons, results, and the student in the browser")
    made.add_argument("--run", default="pocket", help="name of the folder below outputs/ (default: pocket)")
    made.add_argument("--out", type=_path, help="folder to write, or to serve (default: outputs/site)")
    made.add_argument("--serve", action="store_true", help="serve what is built, for this machine alone; build nothing")
    made.add_argument("--port", type=_seed, default=8000, help="of --serve; 0: a free one (default: 8000)")
    return parser


def _not_empty(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty: a variable that is not set? ('.' is the working directory)")
    return text


def _path(text: str) -> Path:
    return Path(_not_empty(text))


def _seed(text: str, least: int = 0) -> int:
    if not text.strip().lstrip("+-").isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number, at least {least}")
    return int(text)


def _count(text: str) -> int:
    return _seed(text, 1)


def _add_settings(made: argparse.ArgumentParser, *names: str) -> None:
    """Options for parameters of the stages, with their own help."""
    for name in names:
        kind = int if name in ("seed", "n_pairs", "images") else str
        words = HELP[name].replace("; None: ", " (default: ") + (")" if "; None: " in HELP[name] else "")
        made.add_argument(f"--{name.replace('_', '-')}", type=kind, help=words)


def _add_accept_code(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--accept-code", action="store_true", help="take finished stages though code has changed; the report says so"
    )


def _add_weights(made: argparse.ArgumentParser) -> None:
    weights = made.add_mutually_exclusive_group()
    told = "student (the default), student-large (better, half as fast), or a *.safetensors, *.onnx or *.xml"
    weights.add_argument("--weights", type=_path, help=told)
    weights.add_argument("--run", help="take the student of a run of yours, by the name of its folder below outputs/")


if __name__ == "__main__":
    sys.exit(main())
