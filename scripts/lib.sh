# shellcheck shell=bash disable=SC2154
# What the scripts share. Sourced, with `root` set to the top of the tree.

# build NAME [MESON OPTION…]: configures build/NAME once, and builds it. Quiet unless it fails.
build() {
    local name=$1 folder=$root/build/$1 log
    shift
    log=$(mktemp)
    mkdir -p "$root/build"
    if { [[ -f $folder/build.ninja ]] || meson setup "$folder" "$root" "$@"; } >"$log" 2>&1 &&
        ninja -C "$folder" >>"$log" 2>&1; then
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
