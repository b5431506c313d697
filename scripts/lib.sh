# shellcheck shell=bash disable=SC2154,SC2034
# What the scripts share. Sourced, with `root` set to the top of the tree.

# build NAME [MESON OPTION…]: configures build/NAME once, and builds it. Quiet unless it fails.
build() {
    local name=$1
    shift
    build_targets "$name" -- "$@"
}

# build_targets NAME [TARGET…] -- [MESON OPTION…]: only these targets; all where none is named.
build_targets() {
    local name=$1 folder=$root/build/$1 log targets=()
    shift
    while [[ $1 != -- ]]; do
        targets+=("$1")
        shift
    done
    shift
    log=$(mktemp)
    mkdir -p "$root/build"
    if { [[ -f $folder/build.ninja ]] || meson setup "$folder" "$root" "$@"; } >"$log" 2>&1 &&
        ninja -C "$folder" "${targets[@]}" >>"$log" 2>&1; then
        rm -f "$log"
        return 0
    fi
    tail -n 40 "$log" >&2
    rm -f "$log"
    echo "building build/$name failed" >&2
    return 1
}

build_release() {
    build release -Dbuildtype=release -Dtests=false
}

# With the sanitizers, and with the named points at which tests kill a worker.
build_debug() {
    build debug -Dbuildtype=debug -Db_sanitize=address,undefined -Dfault_injection=true -Dwerror=true
}

# For scripts/analyze. They have the failpoints too, since the tests want them.
build_tsan() {
    build tsan -Dbuildtype=debugoptimized -Db_sanitize=thread -Dfault_injection=true -Dwerror=true
}
build_memcheck() {
    build memcheck -Dbuildtype=debug -Dfault_injection=true -Dvalgrind=true -Dwerror=true
}
build_coverage() { # threads count as well
    build coverage -Dbuildtype=debug -Db_coverage=true -Dfault_injection=true -Dc_args=-fprofile-update=atomic
}

# work_folder NAME: sets work, a folder of our own that goes with this script, and so does a PostgreSQL in $work/pg.
work_folder() {
    work=$(mktemp -d "${TMPDIR:-/tmp}/durable-$1.XXXXXX")
    chmod 755 "$work" # run by root, PostgreSQL is user postgres and has to reach its files
    trap work_folder_end EXIT
    trap 'exit 130' INT TERM HUP
}
work_folder_end() {
    local status=$?
    trap - EXIT
    cluster_stop "$work/pg" immediate || true
    rm -rf "$work"
    exit "$status"
}

# add_counts LOG: adds what its last line says, `N passed, M failed`, to passed and failed. Sets ok and bad; without such a line
# one has failed.
add_counts() {
    ok='' bad=''
    read -r ok bad < <(sed -n '$s/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$1") || true
    ok=${ok:-0} bad=${bad:-1}
    passed=$((passed + ok)) failed=$((failed + bad))
}

# Where PostgreSQL's server programs are: they are not on the path.
postgres_bin() {
    local bin
    for bin in /usr/lib/postgresql/15/bin /usr/lib/postgresql/*/bin "$(pg_config --bindir 2>/dev/null)"; do
        if [[ -x $bin/initdb ]]; then
            echo "$bin"
            return
        fi
    done
    echo "PostgreSQL's server programs are not found" >&2
    return 1
}

# The server refuses to run as root.
as_postgres() {
    if ((EUID == 0)); then
        (cd / && setpriv --reuid postgres --regid postgres --init-groups "$@")
    else
        (cd / && "$@")
    fi
}

# cluster_start DIR [SETTING…]: a PostgreSQL of our own on a free port of 127.0.0.1. Sets cluster_url.
cluster_start() {
    local dir=$1 bin port setting
    shift
    bin=$(postgres_bin)
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    mkdir -p "$dir"
    if ((EUID == 0)); then
        chown postgres "$dir"
    fi
    as_postgres "$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 >/dev/null
    {
        echo "port = $port"
        echo "listen_addresses = '127.0.0.1'"
        echo "unix_socket_directories = ''"
        echo "max_connections = 200"
        for setting in "$@"; do
            echo "$setting"
        done
    } >>"$dir/data/postgresql.conf"
    as_postgres "$bin/pg_ctl" -D "$dir/data" -w -l "$dir/log" start >/dev/null
    cluster_url=postgresql://postgres@127.0.0.1:$port/postgres
}

# cluster_stop DIR [MODE]
cluster_stop() {
    if [[ -f $1/data/postmaster.pid ]]; then
        as_postgres "$(postgres_bin)/pg_ctl" -D "$1/data" -w -m "${2:-fast}" stop >/dev/null
    fi
}
