#!/usr/bin/env bash
# Runs the image's install steps in a clean virtual environment, for machines without a container engine, and
# starts what was installed from a folder that has nothing of the project in it.
#   deploy/check-image.sh [PIP OPTIONS FOR TORCH, such as --extra-index-url …]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'kill %1 2>/dev/null || true; rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
mkdir "$work/src"
# the same files and the same two install steps as the Dockerfile's build stage
(cd "$root" && cp -r pyproject.toml constraints.txt README.md app samples trainer "$work/src")
cd "$work/src"
"$work/venv/bin/pip" install --quiet --constraint constraints.txt "$@" torch
"$work/venv/bin/pip" install --quiet --constraint constraints.txt '.[otel,postgres,s3]'
rm -rf "$work/src"

cd "$work"
ADIABAT_DATA_DIR="$work/data" "$work/venv/bin/adiabat" serve --no-trainer --port 18080 &
for _ in $(seq 120); do
    "$work/venv/bin/adiabat" health --url http://127.0.0.1:18080 2>/dev/null && break
    sleep 1
done
echo '{"id": "1", "text": "A smoker calms a colony."}' |
    "$work/venv/bin/adiabat" ingest - --url http://127.0.0.1:18080
"$work/venv/bin/adiabat" search "how to keep bees quiet" --url http://127.0.0.1:18080
(cd "$work" && "$work/venv/bin/python" -m trainer --help >/dev/null)
echo "the image's install steps work"
