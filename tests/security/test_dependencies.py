#!/usr/bin/python3
"""What others have written and we use: the SDKs need none of it at run time, scripts/sbom lists all of it, --version says it, and
npm's registry knows no serious weakness of what builds and tests the SDK."""
import contextlib
import functools
import http.server
import json
import pathlib
import re
import subprocess
import threading

import security  # pylint: disable=unused-import # where the harness is
from harness import CLI, PROGRAMS, TREE, command, run_all

ALL = {"durable": CLI, **PROGRAMS}
SERIOUS = ("high", "critical")
# What --version calls a library → its Debian package, and which programs have it.
LIBRARIES = {
    "libpq": ("libpq5", set(ALL)),
    "libevent": ("libevent-core-2.1-7", set(ALL)),
    "json-c": ("libjson-c5", {"durable", "durable-server", "durable-worker"}),
    "OpenSSL": ("libssl3", set(ALL)),
    "libcurl": ("libcurl4", {"durable", "durable-server", "durable-worker"}),
    "http_parser": ("libhttp-parser2.9", {"durable-server"}),
}


def lock_files():
    return sorted(pathlib.Path(TREE / path).parent for path in command("git", "-C", TREE, "ls-files", "*package-lock.json").split())


def the_sdks_need_nothing_at_run_time():
    package = json.loads((TREE / "sdk/typescript/package.json").read_text())
    needs = [name for name in package if name.lower().endswith("dependencies") and name != "devDependencies" and package[name]]
    assert not needs, f"sdk/typescript/package.json has {needs}"
    locked = json.loads((TREE / "sdk/typescript/package-lock.json").read_text())["packages"]
    assert all(about.get("dev") for path, about in locked.items() if path), "not all of package-lock.json is for building"
    sources = sorted((TREE / "sdk/typescript/src").glob("**/*.ts"))
    imports = {(file.name, name) for file in sources
               for name in re.findall(r"""(?:^(?:import|export)\b.*?from |^import |\bimport\(|\brequire\()['"]([^'"]+)['"]""", file.read_text(), re.M)}
    foreign = sorted(one for one in imports if not one[1].startswith(("node:", "./", "../", "#sdk/")))
    assert len(imports) > 20 and not foreign, f"{len(imports)} imports, of which from elsewhere: {foreign}"
    assert "require" not in (TREE / "sdk/go/go.mod").read_text(), "sdk/go/go.mod requires something"


def sbom(*words):
    return command(TREE / "scripts/sbom", *words, *ALL.values())


@functools.cache
def version_of(package):
    return command("dpkg-query", "-W", "-f", "${Version}\n", package).splitlines()[0]


@functools.cache
def files_of(package):
    return set(command("dpkg-query", "-L", package).split("\n"))


def ways(file):
    """By which dpkg may know a library that was found by /lib or by /usr/lib."""
    real = str(pathlib.Path(file).resolve())
    return {file, real, real.removeprefix("/usr"), f"/usr{file}"}


def each_library_is_listed_with_its_version():
    listed = json.loads(sbom())
    assert (listed["bomFormat"], listed["specVersion"]) == ("CycloneDX", "1.5")
    by_ref = {one["bom-ref"]: one for one in listed["components"]}
    assert len(by_ref) == len(listed["components"]), "two components have one name"
    needs = {one["ref"]: one["dependsOn"] for one in listed["dependencies"]}
    assert needs.pop("durable-jobs") == list(ALL) and set(needs) == set(ALL)
    for program, path in ALL.items():
        names = {by_ref[ref]["name"]: by_ref[ref] for ref in needs[program]}
        for library in re.findall(r"\(NEEDED\).*\[(.*)\]", command("readelf", "-d", path)):
            file = re.search(rf"(/\S*/{re.escape(library)}) ", command("ldd", path))[1]
            assert any(ways(file) & files_of(package) for package in names), f"{library} of {program} is of no package that is listed"
        for package, one in names.items():
            assert one["version"] == version_of(package) and one["purl"].startswith(f"pkg:deb/debian/{package}@"), one
    npm = {(one["name"], one["version"]) for one in listed["components"] if one.get("purl", "").startswith("pkg:npm/")}
    for folder in lock_files():
        for path, about in json.loads((folder / "package-lock.json").read_text())["packages"].items():
            if "node_modules/" in path and not about.get("link"):
                assert (path.rpartition("node_modules/")[2], about["version"]) in npm, f"{path} of {folder} is not listed"
    debian = sorted({one["name"] for one in listed["components"] if one.get("purl", "").startswith("pkg:deb/")})
    assert sorted(sbom("--packages").split()) == debian
    print(f"{len(debian)} Debian packages, {len(npm)} npm packages")


def programs_say_what_they_run_with():
    for program, path in ALL.items():
        said = command(path, "--version").splitlines()
        assert re.fullmatch(rf"{program} \d+\.\d+\.\d+", said[0]), said
        versions = dict(re.split("[ /]", line)[:2] for line in said[1:])
        assert set(versions) == {name for name, (_, programs) in LIBRARIES.items() if program in programs}, (program, said)
        for name, version in versions.items():
            installed = version_of(LIBRARIES[name][0])
            assert installed.startswith(version), f"{program} says {name} {version}; installed is {installed}"


def audit(folder, *flags):
    """How many weaknesses npm's registry knows in a lock file, by severity; or None, and why it does not say."""
    done = subprocess.run(["npm", "audit", "--json", "--package-lock-only", *flags], cwd=folder, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=300, check=False)
    with contextlib.suppress(ValueError):
        said = json.loads(done.stdout)
        if "metadata" in said:
            return said["metadata"]["vulnerabilities"], None
        return None, said.get("message") or said.get("error", {}).get("summary") or done.stdout[:300]
    return None, done.stderr[:300]


def no_npm_package_has_a_serious_weakness():
    """Where the registry has no such service, scripts/test shows what was passed over."""
    for folder in lock_files():
        counts, why = audit(folder)
        name = folder.relative_to(TREE)
        if counts is None:
            print(f"passed over: what is known of the npm packages of {name}: {why}", flush=True)
            continue
        print(f"{name}: {counts}", flush=True)
        assert sum(counts[severity] for severity in SERIOUS) == 0, f"`npm audit` in {name} says what: {counts}"


def an_audit_sees_what_a_registry_knows():
    advisory = {"id": 1, "url": "https://example.com/", "title": "made up", "severity": "high", "vulnerable_versions": "*", "cwe": [],
                "cvss": {"score": 8, "vectorString": None}}

    class Registry(http.server.BaseHTTPRequestHandler):
        def reply(self, said):
            body = json.dumps(said).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.reply({"typescript": [advisory]})

        def do_GET(self):
            self.reply({"name": "typescript", "versions": {"5.9.3": {"name": "typescript", "version": "5.9.3"}}})

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        counts, why = audit(TREE / "sdk/typescript", "--registry", f"http://127.0.0.1:{server.server_address[1]}/")
    finally:
        server.shutdown()
        server.server_close()
    assert counts is not None and counts["high"] == 1, (counts, why)


if __name__ == "__main__":
    raise SystemExit(run_all([the_sdks_need_nothing_at_run_time, each_library_is_listed_with_its_version, programs_say_what_they_run_with,
                              no_npm_package_has_a_serious_weakness, an_audit_sees_what_a_registry_knows]))
