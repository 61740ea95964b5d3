#!/usr/bin/env bash
# Makes what the examples need: a Python environment in target/python and the trained models.
# Does only what is missing or older than its sources; safe to start several times at once.
# PYTHON=/path/to/python3 chooses the interpreter (3.11 or later).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
examples=$root/examples
environment=$root/target/python
log=$root/target/python.log
python=${PYTHON:-python3}

say() { printf 'examples: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# Runs a step with its output in the log, and shows the log's tail when it fails.
logged() {
    local what=$1
    shift
    if ! "$@" >>"$log" 2>&1; then
        tail -n 30 "$log" >&2
        fail "$what failed; the lines above are the end of $log"
    fi
}

digest() { sha256sum | cut -d ' ' -f 1; }

make_environment() {
    # An environment cannot be moved, so its path is part of what it was made from.
    local stamp
    stamp=$({ echo "$environment"; "$python" -VV; cat "$examples/requirements.txt"; } | digest)
    [[ $(cat "$environment/.stamp" 2>/dev/null) == "$stamp" ]] && return

    say "making $environment (downloads about 75 MB; progress in $log)"
    : >"$log"
    rm -rf "$environment"
    logged "'$python -m venv' (on Debian it needs the package python3-venv)" "$python" -m venv "$environment"
    logged "'pip install'" "$environment/bin/pip" install --disable-pip-version-check --no-input \
        -r "$examples/requirements.txt"
    echo "$stamp" >"$environment/.stamp"
}

# A model is made from its script and data by the packages of the environment.
train() {
    local example=$1 stamp
    shift
    stamp=$(cd "$examples/$example" && cat "$environment/.stamp" "$@" | digest)
    [[ $(cat "$examples/$example/model/.stamp" 2>/dev/null) == "$stamp" ]] && return

    say "training examples/$example"
    rm -rf "$examples/$example/model"
    logged "training examples/$example" "$environment/bin/python" "$examples/$example/train.py"
    echo "$stamp" >"$examples/$example/model/.stamp"
}

command -v "$python" >/dev/null || fail "$python is not there: install Python 3.11 or later, or set PYTHON"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" -V) is too old: the examples need Python 3.11 or later; set PYTHON to another one"

mkdir -p "$root/target"
exec 9>"$root/target/python.lock"
flock 9
make_environment
train faq train.py faq.json
train digits train.py
train tutorials/model-1 train.py
train tutorials/model-2 train.py
