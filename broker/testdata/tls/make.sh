#!/usr/bin/env bash
# Makes the certificates of the tests of broker/src/peer/tls anew, with openssl. The keys of the CAs
# are not kept. They are valid from 2000 on, whatever a test's machine takes for today.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

cluster=00000000-0000-0000-0000-000000000001
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

cat >"$scratch/ca.cnf" <<END
[ca]
default_ca = it
[it]
database = $scratch/index
new_certs_dir = $scratch
rand_serial = yes
default_md = sha256
unique_subject = no
policy = any
[any]
commonName = supplied
END

key() {
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null
}

# signed NAME KEY UNTIL EXTENSIONS SIGNER...: NAME.pem, as `openssl ca` signs it.
signed() {
    local name=$1 key=$2 until=$3 extensions=$4
    shift 4
    printf '%b' "$extensions" >"$scratch/extensions"
    : >"$scratch/index"
    openssl req -new -key "$key" -subj "/CN=$name" -config <(printf '[req]\ndistinguished_name=n\n[n]\n') |
        openssl ca -batch -notext -config "$scratch/ca.cnf" -startdate 20000101000000Z -enddate "$until" \
            -extfile "$scratch/extensions" -in /dev/stdin -out "$name.pem" "$@" 2>/dev/null
}

ca() {
    key "$scratch/$1.key"
    signed "$1" "$scratch/$1.key" 99991231235959Z \
        'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n' \
        -selfsign -keyfile "$scratch/$1.key"
}

# certificate NAME NODE CA UNTIL USAGE: NAME.pem for the key of a node.
certificate() {
    signed "$1" "node-$2.key" "$4" \
        "subjectAltName=DNS:node-$2.$cluster.tailrace\nextendedKeyUsage=$5\n" \
        -cert "$3.pem" -keyfile "$scratch/$3.key"
}

ca ca
ca other-ca
for node in 1 2; do
    key "node-$node.key"
    certificate "node-$node" "$node" ca 99991231235959Z serverAuth,clientAuth
done
certificate expired-2 2 ca 20010101000000Z serverAuth,clientAuth
certificate stranger-2 2 other-ca 99991231235959Z serverAuth,clientAuth
certificate server-only-2 2 ca 99991231235959Z serverAuth
