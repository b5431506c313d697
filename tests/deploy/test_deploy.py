#!/usr/bin/python3
"""deploy/ as far as a machine without systemd as its first process, and without a cluster, can show it."""
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import time

import yaml

sys.dont_write_bytecode = True
from support import Manager, program
from harness import BUILD, CLI, MODULE, PROGRAMS, TREE, call, command, database, folder, free_port, run_all, until

SYSTEMD = TREE / "deploy/systemd"
KUBERNETES = TREE / "deploy/kubernetes"
UNITS = ["durable-server", "durable-scheduler", "durable-worker"]
GRACE_S = 25  # --grace, where nobody says otherwise
GOODBYE_S = 14  # 2 for worker_leave, 1 for the pool, 11 for connections that are being made
NOWHERE = "postgresql://127.0.0.1:1/none"


def install(root, *flags):
    return command(TREE / "deploy/install", "--build", BUILD, "--root", root, *flags)


def tree_of(root):
    """Every file: its mode and its content."""
    return {str(path.relative_to(root)): (oct(path.lstat().st_mode),
                                          os.readlink(path) if path.is_symlink() else path.read_bytes())
            for path in root.rglob("*") if path.is_symlink() or path.is_file()}


def files_only(tree):
    """Without what systemd-sysusers writes, which outlives the programs."""
    return {name for name in tree if not re.match(r"etc/\.?(passwd|group|shadow|gshadow|\.pwd\.lock)", name)}


# systemd


def installed_units_are_understood_by_systemd():
    with folder() as root:
        install(root)
        for unit in UNITS:
            # The rest of the staged system is not there: its targets, man pages.
            said = command("systemd-analyze", "verify", "--man=no", "--generators=no", f"--root={root}", f"{unit}.service",
                           status=None)
            said = "\n".join(line for line in said.splitlines() if unit in line and "not found" not in line)
            assert said == "", said
            executable = re.search(r"^ExecStart=(\S+)", (SYSTEMD / f"{unit}.service").read_text(), re.M).group(1)
            assert os.access(f"{root}{executable}", os.X_OK), f"{executable} was not installed"


def a_setting_that_systemd_does_not_know_is_found():
    with folder() as root:
        for unit in UNITS:
            text = (SYSTEMD / f"{unit}.service").read_text().replace("/usr/local/bin/" + unit, "/bin/true")
            (root / f"{unit}.service").write_text(text)
            said = command("systemd-analyze", "verify", "--man=no", root / f"{unit}.service", status=None)
            assert "Unknown" not in said and "Failed to parse" not in said and "Invalid" not in said, said
        (root / "durable-worker.service").write_text(text + "\n[Service]\nProtectEverything=yes\n")
        assert "Unknown" in command("systemd-analyze", "verify", "--man=no", root / "durable-worker.service", status=None)


def each_unit_is_exposed_by_two_at_most():
    for unit in UNITS:
        said = command("systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager",
                       SYSTEMD / f"{unit}.service")
        level = float(re.search(r"exposure level for \S+: ([0-9.]+)", said).group(1))
        print(f"{unit}.service: exposure {level}")
        assert level <= 2.0


def units_give_a_drain_its_time():
    for unit in UNITS:
        text = (SYSTEMD / f"{unit}.service").read_text()
        assert "Type=notify\n" in text and re.search(r"^WatchdogSec=", text, re.M)
        seconds = int(re.search(r"^TimeoutStopSec=(\d+)s$", text, re.M).group(1))
        assert seconds > (GRACE_S + GOODBYE_S if unit == "durable-worker" else GRACE_S)


def units_leave_no_core_dump_of_payloads_and_secrets():
    for unit in UNITS:
        assert "\nLimitCORE=0\n" in (SYSTEMD / f"{unit}.service").read_text(), unit


def handlers_have_a_user_of_their_own():
    user = {unit: re.search(r"^User=(.*)$", (SYSTEMD / f"{unit}.service").read_text(), re.M).group(1) for unit in UNITS}
    assert user["durable-worker"] not in (user["durable-server"], user["durable-scheduler"])
    with folder() as root:
        install(root)
        passwd = (root / "etc/passwd").read_text()
        assert all(re.search(f"^{name}:", passwd, re.M) for name in user.values()), passwd


def calls_of(filter_set):
    """The system calls in a set of systemd's, those of the sets in it included."""
    calls = set()
    for line in command("systemd-analyze", "syscall-filter", "--no-pager", filter_set).splitlines()[1:]:
        word = line.strip()
        if word.startswith("@"):
            calls |= calls_of(word)
        elif word and not word.startswith("#"):
            calls.add(word)
    return calls


def the_filter_lets_pass_what_the_programs_call():
    """Started, at work, drained: no call outside of SystemCallFilter, no memory that can be written and run."""
    with folder() as root, database() as url:
        for name in PROGRAMS:
            text = (SYSTEMD / f"{name}.service").read_text()
            assert re.findall(r"^SystemCallFilter=(.*)$", text, re.M) == ["@system-service", "~@privileged @resources"]
            allowed = calls_of("@system-service") - calls_of("@privileged") - calls_of("@resources") | calls_of("@default")
            manager, trace = Manager(root / f"{name}.sock"), root / f"{name}.trace"
            port = free_port()
            flags = {"durable-server": ["--listen", f"127.0.0.1:{port}"], "durable-scheduler": ["--health-port", str(port)],
                     "durable-worker": ["--health-port", str(port), "--module", str(MODULE)]}
            # LeakSanitizer cannot work beside another tracer.
            with program("strace", url, "-D", "-f", "-qq", "-o", trace, PROGRAMS[name], *flags[name],
                         NOTIFY_SOCKET=manager.name, ASAN_OPTIONS="detect_leaks=0") as child:
                manager.wait_for("READY=1")
                assert call(port, "GET", "/metrics")[0] == 200
                if name == "durable-worker":
                    command(CLI, "start", "transfers", "--database-url", url)
                    command(CLI, "start", "noop", "--wait", "30s", "--database-url", url)
                child.drain()
            manager.close()
            traced = trace.read_text()
            calls = set(re.findall(r"^\d+ +(\w+)\(", traced, re.M))
            assert len(calls) > 20 and calls <= allowed, (name, calls - allowed)
            assert "PROT_WRITE|PROT_EXEC" not in traced, name


# deploy/install, deploy/uninstall


def installing_again_changes_nothing():
    with folder() as root:
        install(root)
        before = tree_of(root)
        assert stat.S_IMODE((root / "etc/durable").stat().st_mode) == 0o750
        for name in ("server", "scheduler", "worker"):
            assert stat.S_IMODE((root / f"etc/durable/{name}.env").stat().st_mode) == 0o640
        install(root)
        after = tree_of(root)
        assert after == before, {name for name in {*before, *after} if before.get(name) != after.get(name)}


def an_upgrade_keeps_settings_and_takes_old_files_away():
    with folder() as root:
        install(root)
        (root / "etc/durable/worker.env").write_text("DURABLE_SLOTS=7\n")
        manifest = root / "usr/local/share/durable/installed"
        manifest.write_text(manifest.read_text() + "/usr/local/bin/durable-of-old\n")
        (root / "usr/local/bin/durable-of-old").write_text("")
        (root / "usr/local/bin/of-others").write_text("")
        install(root)
        assert (root / "etc/durable/worker.env").read_text() == "DURABLE_SLOTS=7\n"
        assert not (root / "usr/local/bin/durable-of-old").exists()
        assert (root / "usr/local/bin/of-others").exists()


def uninstalling_leaves_what_is_not_ours():
    with folder() as root:
        install(root)
        (root / "etc/durable/worker.env").write_text("DURABLE_SLOTS=7\n")
        module = root / "usr/local/lib/durable/modules/mine.so"
        module.parent.mkdir(parents=True)
        module.write_text("")
        said = command(TREE / "deploy/uninstall", "--root", root)
        assert "kept, because it was changed" in said
        assert files_only(tree_of(root)) == {"etc/durable/worker.env", "usr/local/lib/durable/modules/mine.so"}
        folders = {str(path.relative_to(root)) for path in root.rglob("*durable*") if path.is_dir()}
        assert folders == {"etc/durable", "usr/local/lib/durable"}, folders
        assert "nothing is installed" in command(TREE / "deploy/uninstall", "--root", root)


def installing_writes_below_its_root_only():
    there = [path for path in ("/etc/durable", "/etc/systemd/system/durable-worker.service") if os.path.exists(path)]
    with folder() as root:
        install(root)
    assert there == [path for path in ("/etc/durable", "/etc/systemd/system/durable-worker.service") if os.path.exists(path)]


def what_is_not_allowed_is_refused():
    for script in ("install", "uninstall"):
        assert "not allowed" in command(TREE / "deploy" / script, "--rot", "/tmp/x", status=2)
        assert "needs a folder" in command(TREE / "deploy" / script, "--root", status=2)
    with folder() as root:
        assert "meson" in command(TREE / "deploy/install", "--build", root, "--root", root / "x", status=2)
        assert not (root / "x").exists()


# Type=notify


def flags_of(name):
    return ["--listen", f"127.0.0.1:{free_port()}"] if name == "durable-server" else []


def programs_tell_that_they_are_ready_alive_and_stopping():
    with folder() as root, database() as url:
        for number, name in enumerate(PROGRAMS):
            for address in (root / f"{number}.sock", f"@durable-deploy-{os.getpid()}-{number}"):
                manager = Manager(address)
                with program(name, url, *flags_of(name), NOTIFY_SOCKET=str(address), WATCHDOG_USEC="1000000") as child:
                    manager.wait_for("READY=1")
                    manager.wait_for("WATCHDOG=1")
                    manager.heard.remove("WATCHDOG=1")  # and again
                    manager.wait_for("WATCHDOG=1")
                    assert "STOPPING=1" not in manager.heard
                    child.drain()
                heard = manager.take()
                assert heard.count("READY=1") == 1 and heard.count("STOPPING=1") == 1, (name, heard)
                manager.close()


def a_worker_without_its_database_is_alive_and_not_ready():
    for name in ("durable-worker", "durable-scheduler"):
        with folder() as root:
            manager = Manager(root / "sock")
            with program(name, NOWHERE, NOTIFY_SOCKET=manager.name, WATCHDOG_USEC="400000") as child:
                manager.wait_for("WATCHDOG=1")
                child.drain()
            heard = manager.take()
            assert "READY=1" not in heard and heard.count("STOPPING=1") == 1, (name, heard)
            manager.close()


def without_a_watchdog_or_for_another_process_none_is_fed():
    with folder() as root, database() as url:
        manager = Manager(root / "sock")
        for environment in ({}, {"WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"}):
            manager.heard.clear()
            with program("durable-worker", url, NOTIFY_SOCKET=manager.name, **environment) as child:
                manager.wait_for("READY=1")
                time.sleep(0.6)
                child.drain()
            assert manager.take() == ["READY=1", "STOPPING=1"], manager.heard
        manager.close()


def a_socket_that_nobody_reads_or_that_is_nonsense_harms_nothing():
    with folder() as root, database() as url:
        manager = Manager(root / "full")
        for address in (root / "absent", root / "full", "nonsense", "@", "/" + "x" * 200):
            with program("durable-scheduler", url, NOTIFY_SOCKET=str(address), WATCHDOG_USEC="2") as child:
                until(lambda: "scheduler.active" in child.words(), "it is at work")
                child.drain()
        manager.close()


# --health-port


def until_ready(port):
    until(lambda: call(port, "GET", "/readyz")[0] == 200, "it is ready", seconds=30)


def health_answers_what_orchestrators_ask():
    with database() as url:
        for name, metric in (("durable-worker", "durable_worker_slots 1024"),
                             ("durable-scheduler", "durable_scheduler_connected 1")):
            port = free_port()
            with program(name, url, "--health-port", str(port)) as child:
                until_ready(port)
                assert call(port, "GET", "/healthz") == (200, '{"status":"ok"}')
                assert call(port, "GET", "/readyz?verbose") == (200, '{"status":"ready"}')
                assert metric in call(port, "GET", "/metrics")[1]
                for path in ("/", "/health", "/healthz/x", "/metricsx"):
                    assert call(port, "GET", path)[0] == 404
                assert call(port, "POST", "/healthz")[0] == 405
                child.drain()


def health_says_not_ready_while_there_is_no_database():
    for name in ("durable-worker", "durable-scheduler"):
        port = free_port()
        with program(name, NOWHERE, "--health-port", str(port)) as child:
            until(lambda: call(port, "GET", "/healthz")[0] == 200, "it answers", seconds=30)
            assert call(port, "GET", "/readyz") == (503, '{"status":"not ready"}')
            child.drain()


def health_has_limits():
    """64 connections, 4 KiB of a head, 5 seconds; and those that behave are served again."""
    with database() as url:
        port = free_port()
        with program("durable-worker", url, "--health-port", str(port)) as child:
            until_ready(port)
            long = socket.create_connection(("127.0.0.1", port))
            long.sendall(b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 5000)
            long.settimeout(3)
            try:
                assert long.recv(100) == b"", "a long head was answered"
            except ConnectionResetError:
                pass
            begun = time.monotonic()
            slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(64)]
            for one in slow:
                one.sendall(b"GET /healthz HTTP/1.1\r\n")
            time.sleep(0.3)
            one_more = socket.create_connection(("127.0.0.1", port))
            one_more.settimeout(2)
            assert one_more.recv(1) == b"", "a 65th connection was kept"
            for one in slow:
                one.settimeout(10)
                assert one.recv(1) == b""
            assert 4 < time.monotonic() - begun < 9
            assert call(port, "GET", "/healthz")[0] == 200
            child.drain()
            for one in [*slow, one_more, long]:
                one.close()


def a_port_that_is_taken_is_an_error():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        for name in ("durable-worker", "durable-scheduler"):
            with program(name, NOWHERE, "--health-port", str(taken.getsockname()[1])) as child:
                assert child.child.wait(30) == 8
                assert "--health-port" in child.words()


# Containers


def links_of(path):
    """The Debian packages whose libraries a program is linked with, but for the C library and the sanitizers."""
    needed = re.findall(r"NEEDED\s+(\S+)", command("objdump", "-p", path))
    paths = dict(re.findall(r"(\S+) => (\S+)", command("ldd", path)))
    for name in needed:
        if re.match(r"lib(c|m|pthread|dl|asan|ubsan|tsan|gcc_s)\.|ld-linux", name):
            continue
        real = os.path.realpath(paths[name])
        owner = command("dpkg", "-S", real, status=None)
        if ": " not in owner or "no path" in owner:  # the merged /usr
            owner = command("dpkg", "-S", real.removeprefix("/usr"))
        yield owner.split(":")[0]


def the_image_has_the_libraries_of_all_programs():
    text = (TREE / "deploy/container/Containerfile").read_text()
    build, run = text.split("\nFROM debian:12-slim\n")
    for path in [*PROGRAMS.values(), CLI]:
        for package in links_of(path):
            assert re.search(rf"\s{re.escape(package)}\s", run), f"{path.name} needs {package}"
    setup = (TREE / "scripts/setup").read_text()
    for package in re.findall(r"\S+-dev\b", build):
        assert package in setup, f"{package} is not in scripts/setup"
    assert re.search(r"^USER 10001:10001$", run, re.M) and "STOPSIGNAL SIGTERM" in run


def the_compose_file_gives_each_program_its_time():
    compose = yaml.safe_load((TREE / "deploy/container/compose.yaml").read_text())
    services = compose["services"]
    assert set(services) == {"postgres", "migrate", "scheduler", "server", "worker"}
    for name in ("scheduler", "server", "worker"):
        service = services[name]
        assert service["build"] == services["migrate"]["build"] and service["image"] == services["migrate"]["image"]
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"] and service["ulimits"] == {"core": 0}
        assert service["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
        assert int(service["stop_grace_period"].removesuffix("s")) > GRACE_S + GOODBYE_S
        assert service["command"][0] == f"durable-{name}"
        assert set(service["environment"]) >= {"DURABLE_DATABASE_URL", "PGPASSWORD"}
    assert services["migrate"]["command"] == ["durable", "migrate"] and services["migrate"]["restart"] == "no"


# Kubernetes: required fields and the promises of ours; what an API server would say is not known here


def manifests():
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    found = {}
    for name in kustomization["resources"]:
        for document in yaml.safe_load_all((KUBERNETES / name).read_text()):
            assert document["apiVersion"] and document["metadata"]["name"]
            key = (document["kind"], document["metadata"]["name"])
            assert key not in found
            found[key] = document
    return found


def kubernetes_has_every_part():
    found = manifests()
    assert ("Namespace", "durable") in found and ("Job", "durable-migrate") in found
    assert ("Service", "durable-server") in found
    for unit in UNITS:
        assert ("Deployment", unit) in found and ("PodDisruptionBudget", unit) in found
    assert not any(kind == "Secret" for kind, _ in found), "the base has no secrets"
    known = {"Namespace": "v1", "Service": "v1", "Job": "batch/v1", "Deployment": "apps/v1", "PodDisruptionBudget": "policy/v1"}
    for (kind, name), document in found.items():
        assert document["apiVersion"] == known[kind], name


def kubernetes_pods_are_locked_down():
    secret = yaml.safe_load((KUBERNETES / "secret.example.yaml").read_text())
    keys = set()
    for (kind, name), document in manifests().items():
        if kind not in ("Deployment", "Job"):
            continue
        pod = document["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False
        (container,) = pod["containers"]
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                                "capabilities": {"drop": ["ALL"]}}
        assert {"cpu", "memory"} <= set(container["resources"]["requests"]) and "memory" in container["resources"]["limits"]
        (ref,) = [one["valueFrom"]["secretKeyRef"] for one in container["env"] if one["name"] == "DURABLE_DATABASE_URL"]
        assert ref["name"] == secret["metadata"]["name"] and ref["key"] in secret["stringData"], name
        keys.add(ref["key"])
    assert keys == set(secret["stringData"]), "each program has a login of its own"


def kubernetes_selectors_meet_their_pods():
    found = manifests()
    for unit in UNITS:
        deployment = found["Deployment", unit]["spec"]
        labels = deployment["template"]["metadata"]["labels"]
        assert deployment["selector"]["matchLabels"] == labels
        assert deployment["replicas"] >= 2
        budget = found["PodDisruptionBudget", unit]["spec"]
        assert budget["selector"]["matchLabels"] == labels and budget["maxUnavailable"] == 1
        (spread,) = deployment["template"]["spec"]["topologySpreadConstraints"]
        assert spread["labelSelector"]["matchLabels"] == labels
    service = found["Service", "durable-server"]["spec"]
    assert service["selector"] == found["Deployment", "durable-server"]["spec"]["selector"]["matchLabels"]


def kubernetes_probes_and_flags_are_the_programs_own():
    found = manifests()
    for unit in UNITS:
        pod = found["Deployment", unit]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        (port,) = container["ports"]
        for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
            assert container[probe]["httpGet"] == {"path": path, "port": port["name"]}
        assert container["command"][0] == unit
        help_text = command(PROGRAMS[unit], "--help")
        for flag in container["command"][1:]:
            name, value = flag.split("=")
            assert re.search(rf"{name}\b", help_text), f"{unit} has no {name}"
            assert value.split(":")[-1] == str(port["containerPort"])
        for one in container["env"]:
            assert one["name"] in help_text, f"{unit} does not read {one['name']}"
    service = found["Service", "durable-server"]["spec"]["ports"][0]
    (container,) = found["Deployment", "durable-server"]["spec"]["template"]["spec"]["containers"]
    assert service["targetPort"] == container["ports"][0]["name"]


def kubernetes_gives_a_drain_its_time():
    found = manifests()

    def pod_of(unit):
        return found["Deployment", unit]["spec"]["template"]["spec"]

    worker = pod_of("durable-worker")
    (grace,) = [one["value"] for one in worker["containers"][0]["env"] if one["name"] == "DURABLE_GRACE"]
    assert worker["terminationGracePeriodSeconds"] > int(grace.removesuffix("s")) + GOODBYE_S
    assert "lifecycle" not in worker["containers"][0], "a second SIGTERM gives everything back at once"
    server = pod_of("durable-server")
    rest = int(server["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert server["terminationGracePeriodSeconds"] > rest + GRACE_S
    assert pod_of("durable-scheduler")["terminationGracePeriodSeconds"] > 60


def kustomize_puts_the_base_together():
    if shutil.which("kubectl") is None:
        print("kubectl is not installed; the files were read, and not put together")
        return
    built = list(yaml.safe_load_all(subprocess.run(["kubectl", "kustomize", KUBERNETES], check=True, text=True, timeout=60,
                                                   stdout=subprocess.PIPE).stdout))
    assert len(built) == len(manifests())
    for document in built:
        assert document["kind"] == "Namespace" or document["metadata"]["namespace"] == "durable"
        if document["kind"] == "Deployment":
            (container,) = document["spec"]["template"]["spec"]["containers"]
            assert re.fullmatch(r"durable-jobs:\d+\.\d+\.\d+", container["image"])


if __name__ == "__main__":
    every = [value for value in list(globals().values())
             if callable(value) and getattr(value, "__module__", "") == "__main__" and value.__code__.co_argcount == 0
             and value is not manifests]
    sys.exit(run_all(every))
