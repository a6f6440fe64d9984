#!/usr/bin/env bash
# Does the net catch fish? Puts each fault of tests/faults/ into a copy of the tree, one at a time, and runs the tests
# until one of them fails. What no test notices has survived, and shows a rule that is not proved.
#
#   scripts/faults.sh                   every fault; half a minute for each
#   scripts/faults.sh --only NAME       those whose names fit the pattern NAME; may be given several times
#   scripts/faults.sh --area NAME       those of tests/faults/NAME.txt; may be given several times
#   scripts/faults.sh --from NAME       that one and those behind it
#   scripts/faults.sh --list            their names, and what each breaks
#   scripts/faults.sh --check           only whether each still finds its text exactly once
#   scripts/faults.sh --report FILE     the table goes there too, whole or not
#   scripts/faults.sh --no-baseline     without first running the tests on the tree as it is
#
# CACHALOT_FAULTS_TARGET names a directory in which builds are kept for the next time, CACHALOT_FAULTS_TIMEOUT the
# seconds after which a suite hangs (240). The checkout is only read; the copy is in a directory that goes in the end.
set -euo pipefail
# Read whole before it starts, so that it may be edited while it runs.
{
shopt -s inherit_errexit
# Bytes are compared, which is quicker than characters.
export LC_ALL=C
cd "$(dirname "$0")/.."

only=() in_areas=() from="" mode=run report="" baseline=yes
while [ $# -gt 0 ]; do
    case "$1" in
    --only) only+=("${2:?--only needs a name}") && shift 2 ;;
    --area) in_areas+=("${2:?--area needs a name}") && shift 2 ;;
    --from) from="${2:?--from needs a name}" && shift 2 ;;
    --report) report="$(realpath "${2:?--report needs a file}")" && shift 2 ;;
    --list) mode=list && shift ;;
    --check) mode=check && shift ;;
    --no-baseline) baseline=no && shift ;;
    *) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "scripts/faults.sh" >&2 && exit 2 ;;
    esac
done
limit="${CACHALOT_FAULTS_TIMEOUT:-240}"
checkout="$PWD"

# The list: a fault is a name, a file, what it breaks, the text to find and the text in its place.
names=() areas=() files=() breaks=() finds=() replacements=()
read_faults() {
    local path="$1" area line part="" last
    area="$(basename "$path" .txt)"
    while IFS= read -r line || [ -n "$line" ]; do
        last=$((${#names[@]} - 1))
        case "$part:$line" in
        *:"=== "*)
            names+=("${line#=== }") areas+=("$area") files+=("") breaks+=("") finds+=("") replacements+=("")
            part=head
            ;;
        head:"file: "*) files[last]="${line#file: }" ;;
        head:"breaks: "*) breaks[last]="${line#breaks: }" ;;
        head:"--- find") part=find ;;
        find:"--- replace") part=replace ;;
        find:*) finds[last]+="$line"$'\n' ;;
        replace:*) replacements[last]+="$line"$'\n' ;;
        :* | head:) ;;
        *) echo "$path: what is this: $line" >&2 && exit 2 ;;
        esac
    done <"$path"
}
for path in tests/faults/*.txt; do
    read_faults "$path"
done
# The last line breaks are not part of the texts, nor are empty lines before the next fault.
for i in "${!names[@]}"; do
    finds[i]="${finds[i]%$'\n'}"
    while [[ "${replacements[i]}" == *$'\n' ]]; do
        replacements[i]="${replacements[i]%$'\n'}"
    done
done

is_chosen() {
    local pattern
    if [ -n "$from" ]; then
        [ "$1" = "$from" ] && from=""
        [ -z "$from" ] || return 1
    fi
    [ ${#in_areas[@]} -eq 0 ] || [[ " ${in_areas[*]} " == *" $2 "* ]] || return 1
    [ ${#only[@]} -gt 0 ] || return 0
    for pattern in "${only[@]}"; do
        # shellcheck disable=SC2053 # it is a pattern
        [[ "$1" == $pattern ]] && return 0
    done
    return 1
}
chosen=()
for i in "${!names[@]}"; do
    if is_chosen "${names[i]}" "${areas[i]}"; then
        chosen+=("$i")
    fi
done
[ ${#chosen[@]} -gt 0 ] || { echo "no fault has that name" >&2 && exit 2; }

# The whole of a file, with the line breaks at its end.
whole() {
    cat "$1"
    printf x
}

# Whether a text holds another exactly once.
holds_once() {
    TEXT="$1" FIND="$2" awk 'BEGIN {
        at = index(ENVIRON["TEXT"], ENVIRON["FIND"])
        exit !(at && ENVIRON["FIND"] != "" && !index(substr(ENVIRON["TEXT"], at + 1), ENVIRON["FIND"]))
    }'
}

stale=0
for i in "${chosen[@]}"; do
    text=""
    [ ! -f "${files[i]}" ] || text="$(whole "${files[i]}")"
    if ! holds_once "$text" "${finds[i]}" || [ -z "${breaks[i]}" ]; then
        echo "stale: ${names[i]}: its text is not in ${files[i]:-any file} exactly once" >&2
        stale=$((stale + 1))
    elif [ "$mode" = list ]; then
        printf '%-10s %-44s %s\n' "${areas[i]}" "${names[i]}" "${breaks[i]}"
    fi
done
duplicates="$(printf '%s\n' "${names[@]}" | sort | uniq -d)"
[ -z "$duplicates" ] || { echo "two faults of one name: $duplicates" >&2 && exit 2; }
if [ "$mode" != run ]; then
    [ "$mode" = list ] || echo "${#chosen[@]} faults, $stale of them stale"
    [ "$stale" -eq 0 ] || exit 1
    exit 0
fi

place="$(mktemp -d)"
trap '[ -z "${pid:-}" ] || kill "$pid"; rm -rf "$place"' EXIT
trap 'exit 130' INT TERM
mkdir "$place/tree"
git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' path; do
    [ ! -e "$path" ] || printf '%s\0' "$path"
done | tar --create --null --files-from=- | tar --extract --directory="$place/tree"
cd "$place/tree"
export CARGO_TARGET_DIR="${CACHALOT_FAULTS_TARGET:-$place/target}"
export CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=1 CARGO_TERM_COLOR=never RUST_BACKTRACE=0

# In the order of what they cost.
suites=("--lib")
for suite in whole semantics simulation; do
    if [ -e "tests/$suite.rs" ] || [ -e "tests/$suite/main.rs" ]; then
        suites+=("--test $suite")
    fi
done

# Runs one suite until a test fails. Sets what comes of it, passed, killed or broken, and by which test.
verdict="" by="" pid=""
run_suite() {
    local suite="$1" built program status=0 failed
    verdict=passed by=""
    # shellcheck disable=SC2086 # an option and its value
    if ! built="$(cargo test --package cachalot $suite --no-run 2>&1)"; then
        verdict=broken by="does not compile: $(grep -m 1 '^error' <<<"$built" || true)"
        return
    fi
    program="$(sed -n 's/^ *Executable .* (\(.*\))$/\1/p' <<<"$built" | tail -n 1)"
    # Emptied here, since what runs in the background may come to that too late.
    : >"$place/log"
    CARGO_MANIFEST_DIR="$PWD" timeout --kill-after=5 "$limit" "$program" >"$place/log" 2>&1 &
    pid=$!
    while kill -0 "$pid" 2>/dev/null && ! grep --quiet '^test .* \.\.\. FAILED$' "$place/log"; do
        sleep 0.2
    done
    failed="$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$place/log" | head -n 1)"
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || status=$?
    pid=""
    if [ -n "$failed" ]; then
        verdict=killed by="${failed% - should panic}"
    elif [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
        verdict=killed by="hangs: $(sed -n 's/^test \(.*\) has been running for over .*/\1/p' "$place/log" | head -n 1)"
    elif [ "$status" -ne 0 ]; then
        verdict=killed by="all ends with $status"
    fi
    by="${suite#--}: $by" by="${by#test }"
}

if [ "$baseline" = yes ]; then
    for suite in "${suites[@]}"; do
        run_suite "$suite"
        [ "$verdict" = passed ] || { echo "without a fault: $verdict by $by" >&2 && exit 1; }
        echo "without a fault, $suite passes ($SECONDS s)"
    done
fi

rows=()
declare -A killed=() total=()
for i in "${chosen[@]}"; do
    started=$SECONDS
    path="${files[i]}"
    text="$(whole "$path")"
    if holds_once "$text" "${finds[i]}"; then
        printf '%s' "${text%%"${finds[i]}"*}${replacements[i]}" >"$path"
        rest="${text#*"${finds[i]}"}"
        printf '%s' "${rest%x}" >>"$path"
        for suite in "${suites[@]}"; do
            run_suite "$suite"
            [ "$verdict" = passed ] || break
        done
        printf '%s' "${text%x}" >"$path"
    else
        verdict=stale by=""
    fi
    [ "$verdict" != passed ] || verdict=SURVIVED by=""
    area="${areas[i]}"
    total[$area]=$((${total[$area]:-0} + 1))
    [ "$verdict" != killed ] || killed[$area]=$((${killed[$area]:-0} + 1))
    printf '%-9s %-44s %4d s  %s\n' "$verdict" "${names[i]}" "$((SECONDS - started))" "$by"
    rows+=("| $area | ${names[i]} | ${breaks[i]} | $verdict | $by |")
    if [ -n "$report" ]; then
        {
            printf '| area | fault | what it breaks | outcome | by |\n| --- | --- | --- | --- | --- |\n'
            printf '%s\n' "${rows[@]}"
        } >"$report"
    fi
done

all=0 caught=0
summary=$'\n| area | killed | of |\n| --- | --- | --- |\n'
for area in $(printf '%s\n' "${!total[@]}" | sort); do
    summary+="| $area | ${killed[$area]:-0} | ${total[$area]} |"$'\n'
    all=$((all + ${total[$area]})) caught=$((caught + ${killed[$area]:-0}))
done
summary+="| all | $caught | $all |"
printf '%s\n' "$summary"
[ -z "$report" ] || printf '%s\n' "$summary" >>"$report"
[ "$caught" -eq "$all" ] || exit 1
exit 0
}
