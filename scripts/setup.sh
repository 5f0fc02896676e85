#!/usr/bin/env bash
# Installs what is missing to build (`setup.sh build`) or to test (`setup.sh test`) on Debian and its kin.
# Does nothing, and needs no rights, when everything is there.
set -euo pipefail
cd "$(dirname "$0")/.."

want="${1:-build}"
missing=()
need() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }

need cc gcc
need c++ g++
need make make
need cmake cmake          # aws-lc, the TLS library, on some targets
need curl curl            # the V8 download, and the lines in the README
need gzip gzip
need sha256sum coreutils
if [ "$want" = test ]; then
  need node nodejs        # workerd, the oracle of the differential tests, comes as an npm package
  need npm npm
  need python3 python3      # the conformance suite of WebSockets
  need pip3 python3-pip
  need busybox busybox-static  # a root filesystem in one file
  if [ "$(id -u)" -eq 0 ]; then # the tests' own daemons need root; without, these tests say that they are skipped
    need dockerd docker.io
    need containerd containerd
    need runc runc
    need podman podman
    need conmon conmon
    need linux.uml user-mode-linux # another kernel, with control groups of version 2
  fi
fi

if [ "${#missing[@]}" -gt 0 ]; then
  echo "setup: installing ${missing[*]}"
  if ! command -v apt-get >/dev/null 2>&1; then
    echo "setup: no apt-get here; please install these yourself: ${missing[*]}" >&2
    exit 1
  fi
  as_root=()
  if [ "$(id -u)" -ne 0 ]; then as_root=(sudo); fi
  export DEBIAN_FRONTEND=noninteractive
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if ! command -v cargo >/dev/null 2>&1; then
  if [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
    echo "setup: add ${CARGO_HOME:-$HOME/.cargo}/bin to PATH first" >&2
  else
    echo "setup: Rust is missing; install it from https://rustup.rs and run this again" >&2
  fi
  exit 1
fi

# The conformance suite of WebSockets, exactly as its requirements file says; again only when that changed.
if [ "$want" = test ]; then
  dir=tests/websocket/python
  if ! cmp -s tests/websocket/requirements.txt "$dir/.atoll-lock"; then
    echo "setup: pip install in $dir"
    rm -rf "$dir"
    pip3 install --quiet --disable-pip-version-check --no-deps --only-binary :all: --target "$dir" \
      -r tests/websocket/requirements.txt
    cp tests/websocket/requirements.txt "$dir/.atoll-lock"
  fi
fi

# npm packages of the tests, exactly as their lock files say; again only when a lock file changed.
if [ "$want" = test ]; then
  while IFS= read -r lock; do
    dir="$(dirname "$lock")"
    stamp="$dir/node_modules/.atoll-lock"
    if ! cmp -s "$lock" "$stamp"; then
      echo "setup: npm ci in $dir"
      (cd "$dir" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
      cp "$lock" "$stamp"
    fi
  done < <(find tests -name package-lock.json -not -path '*/node_modules/*' 2>/dev/null | sort)
fi
