#!/usr/bin/python3
"""What many seeds came to, against what they have to. Called by scripts/chaos.

Usage: tests/chaos/campaign.py FOLDER SEED…
FOLDER has a file for each run, as --json writes it; of each SEED there has to be one. Its last line is `N passed, M failed`.
"""

import json
import pathlib
import sys

# In an hour of all faults, or more; in less, as much less.
COUNTS = (("kills", 2000, ("fault kill",)), ("zombies", 200, ("zombie workers", "zombie endpoints")),
          ("calls of unknown fate", 200, ("unknown fates",)), ("restarts of PostgreSQL", 100, ("fault restart",)),
          ("failovers", 20, ("fault primary",)), ("steps completed", 400_000, ("steps",)))
FAULTS = ("kill", "stop", "cut", "cut one way", "loss", "narrow", "terminate", "restart", "primary", "pause", "drain", "other version", "clock",
          "snapshot", "database clock", "disk full", "disk slow")  # each of them has to happen in as long
JUDGED_FROM_S = 600  # what happens now and then may not in a few minutes
KILLS_ALONE = ["kill_worker"]


def percentile(values, p):
    return sorted(values)[min(len(values) - 1, int(len(values) * p / 100))]


class Summary:
    def __init__(self):
        self.passed = self.failed = 0

    def line(self, what, reached, due, well):
        self.passed += well
        self.failed += not well
        print(f"  {what:<60} {reached:>12}   {due:<16} {'ok' if well else 'MISSED'}")

    def at_most(self, what, values, p, seconds):
        if values:
            found = percentile(values, p)
            self.line(f"{what} (n = {len(values)})", f"{found:.2f} s", f"at most {seconds} s", found <= seconds)

    def counts(self, runs):
        seconds = sum(run["seconds"] for run in runs)
        for what, an_hour, names in COUNTS if seconds >= JUDGED_FROM_S else ():
            n, due = sum(run["counts"].get(name, 0) for run in runs for name in names), int(an_hour * min(seconds / 3600, 1))
            self.line(what, f"{n:,}", f"at least {due:,}", n >= due)
        if seconds >= JUDGED_FROM_S:
            n = {fault: sum(run["counts"].get(f"fault {fault}", 0) for run in runs) for fault in FAULTS}
            print("  " + ", ".join(f"{fault} {count:,}" for fault, count in n.items()))
            self.line("kinds of faults", f"{sum(map(bool, n.values()))}", f"all {len(FAULTS)}", all(n.values()))

    def times(self, runs):
        alone = [s for run in runs if run["only"] == KILLS_ALONE for s in run["recovery"]]
        if not alone:
            print(f"  kills alone: not among these runs (--only {','.join(KILLS_ALONE)})")
        self.at_most("killed until the run has a worker again, kills alone, p50", alone, 50, 3.5)
        self.at_most("killed until the run has a worker again, kills alone, p99", alone, 99, 5)
        self.at_most("promoted until the next step is committed, longest", [s for run in runs for s in run["promotion"]], 100, 15)
        rests = [float("inf") if s is None else s for run in runs for s in run["rests"]]
        self.at_most("last fault until all has ended, longest", rests, 100, 30)

    def violations(self, runs, missing):
        started = sum(run["counts"].get("call start acknowledged", 0) for run in runs)
        lost = sum(n for run in runs for _, number, _, n in run["violations"] if number == "I1")
        self.line(f"lost, of {started:,} acknowledged starts and the events", f"{lost}", "none", lost == 0)
        found = [(run["seed"], *one) for run in runs for one in run["violations"]]
        self.line("violations", f"{len(found)}", "none", not found)
        for seed, number_of_round, number, promise, n in found:
            print(f"    seed {seed}, round {number_of_round}: {number}: {n} times it is not so that {promise}")
        for seed in missing:
            print(f"    seed {seed} broke off")
        self.failed += len(missing)


def main():
    folder, *seeds = sys.argv[1:]
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(pathlib.Path(folder).glob("*.json"))]
    missing = sorted({int(seed) for seed in seeds} - {run["seed"] for run in runs})
    full = [run for run in runs if run["only"] is None]
    summary = Summary()
    print(f"{len(runs)} seeds; {sum(run['seconds'] for run in full) / 60:.0f} minutes of all faults in {len(full)} of them")
    summary.counts(full)
    summary.times(runs)
    summary.violations(runs, missing)
    passed, failed = sum(run["passed"] for run in runs) + summary.passed, sum(run["failed"] for run in runs) + summary.failed
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
