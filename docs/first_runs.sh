#!/usr/bin/env bash
# The two runs that first_runs.svg shows: one with an empty cache, then the same again. To remake it:
#
#     script -qc docs/first_runs.sh docs/first_runs.txt
#     deno run docs/terminal_svg.ts < docs/first_runs.txt | deno fmt --ext svg - > docs/first_runs.svg
set -euo pipefail
cd "$(dirname "$0")/.."

stty cols 100
TRILITH_CACHE=$(mktemp -d)
export TRILITH_CACHE npm_config_loglevel=error
unset TRILITH_ZIG
trap 'rm -rf "$TRILITH_CACHE"' EXIT

TIMEFORMAT=$'\e[2m%1R s in all\e[0m\n'
for _ in first second; do
  printf '\e[1m$ npx -y deno@2.9.6 run -A cli.ts generate "Once upon a time" --max-tokens 60\e[0m\n'
  time npx -y deno@2.9.6 run -A cli.ts generate "Once upon a time" --max-tokens 60
done
