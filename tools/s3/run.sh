#!/usr/bin/env bash
# The suite of all stores (s3-uploader/tests) against a real S3 server, which this starts and stops.
set -euo pipefail
cd "$(dirname "$0")"
source ./server.sh

need_s3
trap leave_s3 EXIT
start_s3 plain
export TAILRACE_TEST_S3=$s3_url
# Checks every signature and every user's policy.
start_s3 guarded
export TAILRACE_TEST_S3_GUARDED=$s3_url

set -a
eval "$("$s3_python" prepare.py "$TAILRACE_TEST_S3" "$TAILRACE_TEST_S3_GUARDED")"
set +a
# Of a user of this machine nothing is used.
export AWS_ACCESS_KEY_ID=suite AWS_SECRET_ACCESS_KEY=suite
export AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null AWS_EC2_METADATA_DISABLED=true
unset AWS_PROFILE AWS_SESSION_TOKEN AWS_ENDPOINT_URL AWS_ENDPOINT_URL_S3 AWS_REGION

cd ../..
# The whole workspace's features, so that what is built already serves.
cargo test --release --locked --workspace --features s3-uploader/s3-server-tests --test s3_suite
