#!/bin/bash
# Runs the WAL's conformance suite through a real ring on ext4, on XFS, and on loop block devices
# with 512 and 4096-byte blocks. Needs root: it makes loop devices and mounts.
set -euo pipefail

if [[ $(id -u) -ne 0 ]]; then
    echo "wal-devices: needs root (losetup, mkfs, mount); run it with sudo" >&2
    exit 1
fi
for tool in losetup mkfs.ext4 mkfs.xfs mount; do
    if ! command -v "$tool" >/dev/null; then
        echo "wal-devices: $tool is missing; see tools/install.sh" >&2
        exit 1
    fi
done

cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
mkdir -p "$target"
# On a file system with direct I/O, which /tmp may not have.
work=$(mktemp -d "$target/wal-devices.XXXXXX")
loops=()
mounts=()

cleanup() {
    for folder in "${mounts[@]}"; do umount "$folder" || true; done
    for loop in "${loops[@]}"; do losetup --detach "$loop" || true; done
    rm -rf "$work"
}
trap cleanup EXIT

# Makes a loop device of SIZE with SECTOR-byte blocks; its name is left in $loop.
make_loop() {
    local image="$work/$1.img" size=$2 sector=$3
    truncate --size "$size" "$image"
    loop=$(losetup --find --show --direct-io=on --sector-size "$sector" "$image")
    loops+=("$loop")
}

suite() {
    echo "wal-devices: $1"
    TAILRACE_TEST_DEVICE=$2 cargo test --release --quiet --package wal-uring --test ring
}

for sector in 512 4096; do
    make_loop "raw-$sector" 16M "$sector"
    suite "loop device, $sector-byte blocks" "$loop"
done

for kind in ext4 xfs; do
    make_loop "$kind" 512M 512
    "mkfs.$kind" -q "$loop"
    mkdir "$work/$kind"
    mount "$loop" "$work/$kind"
    mounts+=("$work/$kind")
    suite "file on $kind" "$work/$kind/wal"
done
echo "wal-devices: all passed"
