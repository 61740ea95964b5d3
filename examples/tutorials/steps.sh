# What the three rollout scripts share; sourced, not run. Each step says what it does, and each outcome is checked.
# shellcheck shell=bash

step() { printf '\n== %s\n' "$*"; }

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# expect WHAT EXPECTED ACTUAL
expect() {
    [[ $3 == "$2" ]] || fail "$1: expected '$2', got '$3'"
    printf '%s: %s\n' "$1" "$3"
}

# expect_part WHAT PART ACTUAL: the answer of a model is longer than what matters of it.
expect_part() {
    [[ $3 == *"$2"* ]] || fail "$1: expected '$2' in it, got '$3'"
    printf '%s: %s\n' "$1" "$3"
}

# expect_only PART COMMAND...: calls ten times; nobody else may answer.
expect_only() {
    local part=$1 answer
    shift
    for _ in {1..10}; do
        answer=$("$@")
        [[ $answer == *"$part"* ]] || fail "expected '$part' in every answer, got '$answer'"
    done
    printf 'of 10 answers all have %s\n' "$part"
}

# expect_both FIRST SECOND COMMAND...: calls until both have answered, so a share is not only written down.
expect_both() {
    local first=$1 second=$2 answer calls=0 of_first=0 of_second=0
    shift 2
    while ((of_first == 0 || of_second == 0)); do
        ((calls < 300)) || fail "of $calls answers $of_first have '$first' in them and $of_second '$second'"
        answer=$("$@")
        calls=$((calls + 1))
        case $answer in
        *"$first"*) of_first=$((of_first + 1)) ;;
        *"$second"*) of_second=$((of_second + 1)) ;;
        *) fail "expected '$first' or '$second' in the answer, got '$answer'" ;;
        esac
    done
    printf 'of %s answers %s have %s and %s have %s\n' "$calls" "$of_first" "$first" "$of_second" "$second"
}

# expect_gone WHAT COMMAND...: the command shows what must not be there.
expect_gone() {
    local what=$1 tries=0
    shift
    # Deleting ends with --no-wait before it is done.
    while "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        ((tries < 300)) || fail "$what is still there"
        sleep 0.2
    done
    printf '%s is gone\n' "$what"
}
