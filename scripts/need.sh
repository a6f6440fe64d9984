# Sourced by other scripts: installs a Debian package unless its command is there.
need() {
    if command -v "$1" >/dev/null; then
        return
    fi
    local sudo=()
    [ "$(id -u)" -eq 0 ] || sudo=(sudo)
    "${sudo[@]}" apt-get update
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$2"
}

# has PATTERN: whether what comes in has it. Reads all of it, where `grep -q` would end at the first match and fail whoever still
# writes.
has() {
    local text
    text="$(cat)"
    grep -q -- "$1" <<<"$text"
}
