#!/usr/bin/env bash
# All checks and tests; sets itself up. Arguments go to pytest.
#
#   ./run_tests.sh                     checks, and all tests but the slow ones
#   ./run_tests.sh -n 0                one file after another, for --pdb say
#   ./run_tests.sh --fast              without the tests that need torch environments
#   ./run_tests.sh -m ""               the slow ones too
#   ./run_tests.sh tests/bench -k hash
set -euo pipefail
root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
. "$root/requirements/bootstrap.sh"
cd "$root"

fast=
arguments=()
for argument in "$@"; do
    if [ "$argument" = --fast ]; then fast=yes; else arguments+=("$argument"); fi
done

tools_python dev
export PYTHONPATH="$root"

check() {
    echo "== $*"
    "$python" -m "$@"
}
check ruff check .
check ruff format --check .
check mypy
echo "== import-linter"
"$python" -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'

if [ -z "$fast" ] && ! command -v chromium chromium-browser >/dev/null; then
    if [ -n "${CI:-}" ] && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        echo "== apt-get install chromium (for the report's test)"
        { apt-get update && apt-get install --yes --no-install-recommends chromium; } >/dev/null ||
            echo "spbench: chromium could not be installed; the report is not tested in a browser" >&2
    else
        echo "spbench: no chromium on the PATH: the report's tests in a browser are skipped" \
            "(Debian, Ubuntu: apt-get install chromium)" >&2
    fi
fi

if [ -n "$fast" ]; then
    arguments+=(-m "not environment and not slow")
else
    "$root/spbench" env sync torch-2.2 torch-2.13
fi
echo "== pytest"
# Two at once, a file as a whole: most of a trial is one process that starts and waits.
exec "$python" -m pytest -n 2 --dist loadfile ${arguments[@]+"${arguments[@]}"}
