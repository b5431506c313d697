"""The version before: which commit that is, its sources, its schema, its programs."""
import contextlib
import os
import pathlib
import shutil
import subprocess
import tempfile

TREE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ["DURABLE_BUILD"])
ADMIN = os.environ["DURABLE_TEST_URL"]
TARGETS = {"worker": "worker/durable-worker", "scheduler": "server/scheduler/durable-scheduler",
           "server": "server/api/durable-server", "cli": "cli/durable", "module": "tests/support/test_module.so"}


def run(*words, **settings):
    """What it printed; it is to succeed."""
    done = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False, **settings)
    assert done.returncode == 0, f"{' '.join(map(str, words))}: status {done.returncode}\n{done.stdout[-4000:]}"
    return done.stdout.strip()


def before(named=None):
    """The commit that is named, or of the newest tag, or the one in the file `since`: in full."""
    tags = run("git", "-C", TREE, "tag", "--merged", "HEAD", "--sort=-creatordate", "--list", "v*").split()
    commit = named or (tags[0] if tags else (pathlib.Path(__file__).parent / "since").read_text().strip())
    return run("git", "-C", TREE, "rev-parse", "--verify", f"{commit}^{{commit}}")


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
        run("meson", "setup", folder / "build", folder / "tree", "-Dbuildtype=debug", "-Doptimization=1")
        run("ninja", "-C", folder / "build", *TARGETS.values())
    return programs


@contextlib.contextmanager
def database(name, template="template0"):
    name = f"upgrade_{name}_{os.getpid()}"
    run("psql", "-X", "-q", "-c", "select pg_advisory_lock(1)", "-c", f"create database {name} template {template}", ADMIN)
    try:
        yield f"{ADMIN[:ADMIN.rindex('/')]}/{name}"
    finally:
        run("psql", "-X", "-q", "-c", f"drop database {name} with (force)", ADMIN)


def load_schema(url, tree):
    """The way without the program, as migrations/README.md has it."""
    files = sorted((tree / "migrations").glob("0*.sql")) + sorted((tree / "migrations/functions").glob("*.sql"))
    text = "set check_function_bodies = off;\n" + "".join(file.read_text() for file in files)
    subprocess.run(["psql", "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", url], check=True, text=True, stderr=subprocess.PIPE,
                   input=text + "set client_min_messages = warning; select durable_internal.make_partitions();",
                   stdout=subprocess.DEVNULL)
