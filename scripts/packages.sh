# Debian's packages, for the scripts that source this: installed as root by apt, else told.

# Packages that are missing and cannot be installed here.
missing=()

# Another apt may be at work, as in a machine that has just started, and for the lists no option waits.
update_lists() {
    local told
    for _ in $(seq 60); do
        if told=$(LC_ALL=C apt-get -o Acquire::Retries=5 update -q 2>&1 >/dev/null); then return; fi
        case $told in *'Could not get lock'*) sleep 5 ;; *) break ;; esac
    done
    printf '%s\n' "$told" >&2
    exit 1
}

# Makes sure that a check succeeds, by installing Debian packages if it does not.
need() {
    local check=$1; shift
    if eval "$check" >/dev/null 2>&1; then return; fi
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        printf 'installing: %s\n' "$*"
        update_lists
        DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=5 -o DPkg::Lock::Timeout=300 \
            install -qy --no-install-recommends "$@" >/dev/null
        if eval "$check" >/dev/null 2>&1; then return; fi
        printf 'installed %s, and yet this fails: %s\n' "$*" "$check" >&2
        exit 1
    fi
    missing+=("$@")
}

# Ends here if anything was missing: told at once, for whoever installs it.
nothing_missing() {
    if [ ${#missing[@]} = 0 ]; then return; fi
    printf 'packages are missing, by their names on Debian; as root: apt-get install %s\n' "${missing[*]}" >&2
    exit 1
}
