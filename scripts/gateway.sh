# Sourced by other scripts: `until_served URI PROCESS` waits until a gateway answers at an address; fails with its process.
until_served() {
    for _ in $(seq 200); do
        ! nbdinfo --size "$1" >/dev/null 2>&1 || return 0
        kill -0 "$2"
        read -r -t 0.05 <> <(:) || true
    done
    echo "nothing answers at $1" >&2
    return 1
}
