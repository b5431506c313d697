#!/usr/bin/python3
"""What an older program says to the schema, and what a newer schema says to that.

Every call of the older common/db_calls.c is prepared on both schemas: the newer one has to understand it, with the same types
of parameters, with at least the same columns in their places, and for the same roles. The functions and views of schema
`durable`, which people call themselves, are compared by their signatures.

Usage: calls.py [COMMIT]     in the environment that scripts/test makes; its last line is `N passed, M failed`."""
import ctypes
import re
import subprocess
import sys

import psycopg

sys.dont_write_bytecode = True
import versions
from harness import TREE, command, database, folder

SOURCES = {"worker": "worker", "server": "server/api", "scheduler": "server/scheduler"}


class DbCall(ctypes.Structure):
    """struct db_call."""
    _fields_ = [("name", ctypes.c_char_p), ("sql", ctypes.c_char_p), ("param_count", ctypes.c_int),
                ("param_types", ctypes.POINTER(ctypes.c_uint))]


def calls_of(tree):
    """(its name in C, SQL, types of parameters) of each call, as the compiler sees it."""
    with folder() as place:
        library = place / "db_calls.so"
        command("cc", "-shared", "-fPIC", "-I", tree, "-I", command("pg_config", "--includedir").strip(), "-o", library,
                tree / "common/db_calls.c")
        names = [line.split()[-1] for line in command("nm", "-D", "--defined-only", library).splitlines()]
        loaded = ctypes.CDLL(str(library))
    calls = {name: DbCall.in_dll(loaded, name) for name in sorted(names) if name.startswith("CALL_")}
    return [(name, call.sql.decode(), [call.param_types[n] for n in range(call.param_count)]) for name, call in calls.items()]


def missed_by(url):
    """What the programs of today call, and the schema there does not understand: program → their names. One that misses none can work."""
    schema = Schema(url)
    unknown = {name for name, sql, types in calls_of(TREE) if schema.meaning(sql, types)[0] is None}
    schema.conn.close()
    said = {program: "".join(file.read_text() for file in (TREE / place).glob("*.c")) for program, place in SOURCES.items()}
    return {program: sorted(unknown & set(re.findall(r"\bCALL_\w+", text))) for program, text in said.items()}


class Schema:
    def __init__(self, url):
        self.conn = psycopg.connect(url, autocommit=True)

    def rows(self, query, *values):
        return self.conn.execute(query, values or None).fetchall()

    def type_name(self, oid):
        return self.rows("select format_type(%s, null)", oid)[0][0]

    def meaning(self, sql, types):
        """Types of parameters, and columns; or why it is not understood."""
        prepared = self.conn.pgconn.prepare(b"", sql.encode(), types)
        if prepared.status != psycopg.pq.ExecStatus.COMMAND_OK:
            return None, prepared.error_message.decode().strip()
        said = self.conn.pgconn.describe_prepared(b"")
        return ([self.type_name(said.param_type(n)) for n in range(said.nparams)],
                [(said.fname(n).decode(), self.type_name(said.ftype(n))) for n in range(said.nfields)])

    def callers(self, sql):
        """(function or view, role) of all that it names."""
        names = set(re.findall(r"(durable(?:_internal)?)\.(\w+)", sql))
        return {(f"{space}.{name}", role) for space, name in names for role, in self.rows(
            "select r.rolname from pg_roles r where r.rolname like 'durable%%' and (exists (select from pg_proc p where "
            "p.pronamespace = %s::regnamespace and p.proname = %s and has_function_privilege(r.oid, p.oid, 'execute')) or "
            "exists (select from pg_class c where c.relnamespace = %s::regnamespace and c.relname = %s and "
            "has_table_privilege(r.oid, c.oid, 'select')))", space, name, space, name)}

    def functions(self):
        """Of schema durable: name → (arguments as (name, type), how many have a default, result)."""
        return {name: (arguments, defaults, result) for name, arguments, defaults, result in self.rows(
            "select proname, (select coalesce(array_agg(coalesce(proargnames[n], '') || ' ' || format_type(proargtypes[n - 1], "
            "null) order by n), '{}') from generate_series(1, pronargs) as n), pronargdefaults, pg_get_function_result(oid) "
            "from pg_proc where pronamespace = 'durable'::regnamespace")}

    def views(self):
        return {name: columns for name, columns in self.rows(
            "select relname, array_agg(attname || ' ' || format_type(atttypid, atttypmod) order by attnum) from pg_class c "
            "join pg_attribute a on a.attrelid = c.oid and attnum > 0 where relnamespace = 'durable'::regnamespace and "
            "relkind = 'v' group by relname")}


def differences(calls, old, new):
    """What an older program would miss: (name, why)."""
    missed = []
    for name, sql, types in calls:
        old_types, old_columns = old.meaning(sql, types)
        assert old_types is not None, f"{name} does not fit its own schema: {old_columns}"
        new_types, new_columns = new.meaning(sql, types)
        lost = old.callers(sql) - new.callers(sql)
        if new_types is None:
            missed.append((name, new_columns))
        elif new_types != old_types:
            missed.append((name, f"its parameters were {old_types}, and are {new_types}"))
        elif new_columns[:len(old_columns)] != old_columns:
            missed.append((name, f"its columns were {old_columns}, and are {new_columns}"))
        elif lost:
            missed.append((name, f"not allowed any more: {sorted(lost)}"))
    return missed


def public_differences(old, new):
    missed = []
    functions, views = new.functions(), new.views()
    for name, (arguments, defaults, result) in old.functions().items():
        there = functions.get(name)
        if there is None:
            missed.append((f"durable.{name}", "is gone"))
        elif there[0][:len(arguments)] != arguments or len(there[0]) - there[1] > len(arguments) - defaults or \
                not there[2].startswith(result.removesuffix(")")):
            missed.append((f"durable.{name}", f"was {arguments, defaults, result}, and is {there}"))
    for name, columns in old.views().items():
        if views.get(name, [])[:len(columns)] != columns:
            missed.append((f"durable.{name}", f"had the columns {columns}, and has {views.get(name)}"))
    return missed


def look(commit):
    """How many calls were compared, and what of them would be missed."""
    with versions.sources(commit) as tree, database("template0") as old_url, database() as new_url:
        versions.load_schema(old_url, tree)
        calls, old, new = calls_of(tree), Schema(old_url), Schema(new_url)
        missed = differences(calls, old, new) + public_differences(old, new)
        count = len(calls) + len(old.functions()) + len(old.views())
        old.conn.close()
        new.conn.close()
    return count, missed


def main(arguments):
    commit = versions.before(arguments[0] if arguments else None)
    compared, missed = look(commit)
    for name, why in missed:
        print(f"{name}: {why}")
    print(f"what {commit[:12]} calls: {compared} looked at")
    print(f"{compared - len(missed)} passed, {len(missed)} failed")
    return 1 if missed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error}\n{error.stderr}")
