#!/usr/bin/env bash
# Builds librdkafka's test-runner once, under .cache/librdkafka, from the sources in the locked crate.
set -euo pipefail
cd "$(dirname "$0")"

home=$(cd ../.. && pwd)/.cache/librdkafka
runner=$home/src/tests/test-runner
stamp=$home/built.$(cat Cargo.lock build.sh | sha256sum | cut -c1-16)
if [[ -x $runner && -e $stamp ]]; then exit 0; fi

crate=$(cargo metadata --locked --format-version 1 | python3 -c '
import json, os, sys
packages = json.load(sys.stdin)["packages"]
[path] = [each["manifest_path"] for each in packages if each["name"] == "rdkafka-sys"]
print(os.path.dirname(path))')
rm -rf "$home"
mkdir -p "$home"
cp -r "$crate/librdkafka" "$home/src"
chmod -R u+w "$home/src"
cd "$home/src"
{
    # Not optimized: it builds in a third of the time, and the tests wait more than they compute.
    ./configure --disable-ssl --disable-gssapi --disable-curl --disable-lz4-ext \
        --disable-optimization --disable-debug-symbols
    make -j2 -C src
    make -j2 -C src-cpp
    make -j2 -C tests test-runner
} >"$home/build.log" 2>&1 || { tail -n 30 "$home/build.log" >&2; exit 1; }
touch "$stamp"
