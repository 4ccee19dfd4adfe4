#!/usr/bin/env bash
# One command: sets itself up, sweeps, ends with the answer. Arguments are Hydra overrides.
set -euo pipefail
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/spbench" sweep "$@"
