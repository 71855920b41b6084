#!/bin/sh
# Builds $VENV: torch and torchvision together, then amodal with its development tools, versions as in constraints.txt.
set -eu
: "${PYTHON:=python3}" "${VENV:=.venv}" "${PIP_ARGS:=}"

"$PYTHON" - <<'CHECK' || exit 1
import sys
if not (3, 10) <= sys.version_info[:2] <= (3, 13):
    sys.exit("make setup: Python %d.%d found, 3.10 to 3.13 needed; choose one with make setup PYTHON=..." % sys.version_info[:2])
CHECK

echo "Setting up $VENV (a few minutes, once)"
if command -v uv >/dev/null 2>&1; then
    [ -x "$VENV/bin/python" ] || uv venv -q --python "$PYTHON" "$VENV"
    install() { uv pip install -q --python "$VENV/bin/python" -c constraints.txt "$@"; }
else
    [ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
    install() { "$VENV/bin/python" -m pip install -q --disable-pip-version-check -c constraints.txt "$@"; }
fi

# One command for the pair: torch and torchvision must be matching builds from the same place.
# shellcheck disable=SC2086
install $PIP_ARGS torch torchvision
install -e ".[dev]"

"$VENV/bin/python" - <<'CHECK' || exit 1
import sys
try:
    import torch
    import torchvision
    torchvision.ops.nms(torch.rand(2, 4), torch.rand(2), 0.5)
except Exception as error:
    sys.exit(f"make setup: torch and torchvision do not fit together ({error}); delete .venv and install both from one index")
CHECK
