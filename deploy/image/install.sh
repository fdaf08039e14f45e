#!/bin/sh
# Installs into an image's environment from the wheels of the build, mounted for one RUN only: no registry, no pip in the image.
# Usage: install.sh REQUIREMENT… (as for pip install); our own parts are found when they are mounted at /parts.
set -eu
if [ -d /parts ]; then set -- --find-links=/parts "$@"; fi
exec /opt/build/bin/pip --python /opt/postern/bin/python install --quiet --no-cache-dir --no-index \
    --find-links=/opt/build/wheels "$@"
