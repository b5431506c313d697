#!/usr/bin/python3
"""Guarantee 15: what the programs of the version before say to the schema, the schema of today understands. The programs
themselves are run by tests/upgrade/upgrade.py, as building them takes a while."""
import pathlib
import shutil
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "upgrade"))
import calls
import versions
from harness import BUILD, TREE, database, run_all


def nothing_that_the_version_before_calls_is_missing():
    compared, missed = calls.look(versions.before())
    assert compared > 100 and not missed, missed


def what_would_be_missed_is_noticed():
    changes = {
        "CALL_BEAT": "drop function durable_internal.beat",
        "CALL_CLAIM": "revoke execute on function durable_internal.claim(uuid, int, int, int, boolean) from durable_worker",
        "CALL_PROMOTE_DUE": "drop function durable_internal.promote_due; create function durable_internal.promote_due(most int, back_s "
                            "int, out promoted text, out due_in_ms bigint) language sql as 'select null::text, 1::bigint'",
        "CALL_ENDPOINT_WELL": "drop function durable_internal.endpoint_well; create function durable_internal.endpoint_well(uuid, "
                              "text, boolean) returns void language sql as ''",
        "durable.cancel": "drop function durable.cancel; create function durable.cancel(run_id uuid, reason text) returns "
                          "boolean language sql as 'select true'",
        "durable.queues": "alter view durable.queues rename column depth to length",
    }
    with database() as same_url, database() as other_url:
        same, other = calls.Schema(same_url), calls.Schema(other_url)
        present = calls.calls_of(copy_of_calls())
        assert not calls.differences(present, same, other) + calls.public_differences(same, other)
        for change in changes.values():
            other.conn.execute(change)
        missed = {name for name, _ in calls.differences(present, same, other) + calls.public_differences(same, other)}
        assert missed >= set(changes), set(changes) - missed
        assert "CALL_COMMIT" not in missed and "durable.start" not in missed
        same.conn.close()
        other.conn.close()


def copy_of_calls():
    folder = BUILD / "calls"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(TREE / "common", folder / "common")
    return folder


sys.exit(run_all([nothing_that_the_version_before_calls_is_missing, what_would_be_missed_is_noticed]))
