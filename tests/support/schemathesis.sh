#!/usr/bin/env bash
# Makes target/schemathesis, a Python environment with schemathesis, where it is missing. PYTHON chooses the interpreter.
set -euo pipefail
version=4.32.5
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
environment=$root/target/schemathesis
python=${PYTHON:-python3}
[[ $(cat "$environment/.stamp" 2>/dev/null) == "$environment $version" ]] && exit
echo "making $environment (downloads about 15 MB)" >&2
rm -rf "$environment"
"$python" -m venv "$environment"
"$environment/bin/pip" install --quiet --disable-pip-version-check --no-input "schemathesis==$version"
echo "$environment $version" > "$environment/.stamp"
