"""What the tests of deployment have beside tests/support/harness.py: programs with a service manager's socket."""
import contextlib
import pathlib
import select
import socket
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from harness import PROGRAMS, Program, folder


class Manager:
    """A service manager, as far as its socket goes."""

    def __init__(self, name):
        self.name = str(name)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + self.name[1:] if self.name.startswith("@") else self.name)
        self.heard = []

    def wait_for(self, word, seconds=30):
        end = time.monotonic() + seconds
        while word not in self.heard:
            assert select.select([self.socket], [], [], max(0, end - time.monotonic()))[0], \
                f"{word} did not come; heard: {self.heard}"
            self.heard.append(self.socket.recv(4096).decode())

    def take(self):
        """All that is there now."""
        while select.select([self.socket], [], [], 0)[0]:
            self.heard.append(self.socket.recv(4096).decode())
        return self.heard

    def close(self):
        self.socket.close()


@contextlib.contextmanager
def program(name, url, *flags, **environment):
    with folder() as root:
        child = Program([PROGRAMS.get(name, name), *flags], root / "log", {"DURABLE_DATABASE_URL": url, **environment})
        try:
            yield child
        finally:
            child.kill()
