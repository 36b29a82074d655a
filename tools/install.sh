#!/usr/bin/env bash
# Makes the programs that the tests call available; names the one that cannot be had.
set -euo pipefail

# program, or pattern of a file's path:Debian package
wanted=(
    cc:gcc c++:g++ make:make git:git strace:strace setpriv:util-linux
    /usr/include/zlib.h:zlib1g-dev /usr/include/zstd.h:libzstd-dev
    /usr/include/rapidjson/schema.h:rapidjson-dev
    mold:mold
    kcat:kcat
    curl:curl
    openssl:openssl
    ip:iproute2 iptables-restore:iptables unshare:util-linux
    valgrind:valgrind
    '/usr/lib/*/faketime/libfaketimeMT.so.1:libfaketime'
    mkfs.ext4:e2fsprogs mkfs.xfs:xfsprogs losetup:mount
    python3:python3-venv
    node:nodejs npm:npm
    javac:default-jdk-headless mvn:maven
)

absent_packages() {
    local pair what
    for pair in "${wanted[@]}"; do
        what=${pair%%:*}
        if [[ $what == /* ]]; then
            compgen -G "$what" >/dev/null || echo "${pair##*:}"
        else
            PATH=$PATH:/usr/sbin:/sbin command -v "$what" >/dev/null || echo "${pair##*:}"
        fi
    done
}

command -v cargo >/dev/null || { echo "install: cargo is missing: install Rust (rustup)" >&2; exit 1; }

mapfile -t packages < <(absent_packages)
if ((${#packages[@]} > 0)); then
    if [[ $(id -u) != 0 ]]; then
        echo "install: missing, and only root can install: ${packages[*]}" >&2
        exit 1
    fi
    echo "install: ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi

mapfile -t packages < <(absent_packages)
if ((${#packages[@]} > 0)); then
    echo "install: still missing after apt-get: ${packages[*]}" >&2
    exit 1
fi
