#!/usr/bin/env bash
# Makes V8's static library available to the build without anyone setting a variable.
#
# Order: RUSTY_V8_ARCHIVE set by the user wins. Else the archive in ../shared/v8, if there is one for this
# version and target, is put once where the v8 crate's build script looks before it downloads. Else the
# crate downloads its library from its upstream release.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -n "${RUSTY_V8_ARCHIVE:-}${V8_FROM_SOURCE:-}" ]; then
  exit 0 # the user decided
fi

name=librusty_v8_simdutf_release_x86_64-unknown-linux-gnu.a.gz
archive="../shared/v8/$name"
if [ ! -f "$archive" ] || [ "$(uname -s)-$(uname -m)" != Linux-x86_64 ]; then
  exit 0
fi

# The library belongs to exactly one version of the crate; with another one, let the crate download its own.
version=150.4.0
if [ -f Cargo.lock ] && ! grep -A1 '^name = "v8"$' Cargo.lock | grep -q "^version = \"$version\"$"; then
  exit 0
fi

sum="$(sed -nE "s/^\| *$name *\| *([0-9a-f]{64}) *\|$/\1/p" ../shared/v8/README.md 2>/dev/null | head -n1)"
url="https://github.com/denoland/rusty_v8/releases/download/v$version/$name"
place="${CARGO_HOME:-$HOME/.cargo}/.rusty_v8/$(printf '%s' "$url" | sed -E 's/[^A-Za-z0-9]/_/g')"

# Same size and already checked once: nothing to do. The stamp saves hashing the archive at every build.
if [ -f "$place" ] && [ -f "$place.sha256" ] && [ "$(cat "$place.sha256")" = "$sum" ] \
   && [ "$(stat -c %s "$place")" = "$(stat -c %s "$archive")" ]; then
  exit 0
fi

actual="$(sha256sum "$archive" | cut -d' ' -f1)"
if [ -n "$sum" ] && [ "$actual" != "$sum" ]; then
  echo "v8: $archive does not have the SHA-256 that its README names; not using it" >&2
  exit 1
fi
echo "v8: using $archive"
mkdir -p "$(dirname "$place")"
partial="$place.$$"
trap 'rm -f "$partial"' EXIT
cp "$archive" "$partial"
mv -f "$partial" "$place" # atomic: a build that runs now never sees half a file
printf '%s' "$actual" > "$place.sha256"
