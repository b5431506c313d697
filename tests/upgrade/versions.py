"""The version before: which commit that is, its sources, its schema, its programs."""
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


def built(commit):
    """Its programs. They are kept in build/, for the next time."""
    folder = TREE / "build" / f"before-{commit[:12]}"
    programs = programs_of(folder / "build")
    if not all(path.exists() for path in programs.values()):
        shutil.rmtree(folder, ignore_errors=True)
        extract(commit, folder / "tree")
        command("meson", "setup", folder / "build", folder / "tree", "-Dbuildtype=debug", "-Doptimization=1")
        command("ninja", "-C", folder / "build", *TARGETS.values(), timeout=BUILD_S)
    return programs


def load_schema(url, tree):
    """The way without the program, as migrations/README.md has it."""
    files = sorted((tree / "migrations").glob("0*.sql")) + sorted((tree / "migrations/functions").glob("*.sql"))
    text = "set check_function_bodies = off;\n" + "".join(file.read_text() for file in files)
    subprocess.run(["psql", "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", url], check=True, text=True, stderr=subprocess.PIPE,
                   input=text + "set client_min_messages = warning; select durable_internal.make_partitions();",
                   stdout=subprocess.DEVNULL)
