#!/usr/bin/python3
"""The version before: which commit that is, its sources, its schema, its programs.

Usage: DURABLE_BUILD=FOLDER tests/upgrade/versions.py debug|release     builds its programs, and says where they are
"""
import contextlib
import pathlib
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from harness import TREE, command

TARGETS = {"worker": "worker/durable-worker", "scheduler": "server/scheduler/durable-scheduler",
           "server": "server/api/durable-server", "cli": "cli/durable", "module": "tests/support/test_module.so"}
HANDLERS = "tests/chaos/kitchen_sink"  # of today: a user's code does not go back with the programs
OPTIONS = {"debug": ["-Dbuildtype=debug", "-Doptimization=1"], "release": ["-Dbuildtype=release"]}
BUILD_S = 900  # within which all of it is built


def before(named=None):
    """The commit that is named, or of the newest tag, or the one in the file `since`: in full."""
    tags = command("git", "-C", TREE, "tag", "--merged", "HEAD", "--sort=-creatordate", "--list", "v*").split()
    commit = named or (tags[0] if tags else (pathlib.Path(__file__).parent / "since").read_text().strip())
    return command("git", "-C", TREE, "rev-parse", "--verify", f"{commit}^{{commit}}").strip()


def extract(commit, folder):
    """Its files."""
    archive = subprocess.run(["git", "-C", TREE, "archive", commit], stdout=subprocess.PIPE, check=True).stdout
    folder.mkdir(parents=True)
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)


@contextlib.contextmanager
def sources(commit):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="durable-before."))
    try:
        extract(commit, folder / "tree")
        yield folder / "tree"
    finally:
        shutil.rmtree(folder)


def programs_of(build):
    return {name: build / path for name, path in TARGETS.items()}


def built(commit, how="debug"):
    """The folder with its programs. It is kept in build/, for the next time."""
    tree = TREE / "build" / f"before-{commit[:12]}"
    build = tree / "build" / how
    if not (build / "build.ninja").exists():
        shutil.rmtree(build, ignore_errors=True)
        if not (tree / "meson.build").exists():
            part = tree.with_suffix(".part")
            for rest in (part, tree):
                shutil.rmtree(rest, ignore_errors=True)
            extract(commit, part)
            part.rename(tree)
        command("meson", "setup", build, tree, *OPTIONS[how])
    today, theirs = TREE / f"{HANDLERS}.c", tree / f"{HANDLERS}.c"
    if today.read_bytes() != theirs.read_bytes():
        shutil.copy(today, theirs)
    command("ninja", "-C", build, *TARGETS.values(), f"{HANDLERS}.so", timeout=BUILD_S)
    return build


def load_schema(url, tree):
    """The way without the program, as migrations/README.md has it."""
    files = sorted((tree / "migrations").glob("0*.sql")) + sorted((tree / "migrations/functions").glob("*.sql"))
    text = "set check_function_bodies = off;\n" + "".join(file.read_text() for file in files)
    subprocess.run(["psql", "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", url], check=True, text=True, stderr=subprocess.PIPE,
                   input=text + "set client_min_messages = warning; select durable_internal.make_partitions();",
                   stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    print(built(before(), sys.argv[1]))
