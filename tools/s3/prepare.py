"""Makes the suite's bucket on one server; on the other, users of whom one may only read, and then has
it check who asks for what. Prints the users' keys as assignments for a shell."""

import json
import sys
import urllib.request

import boto3


def client(service, endpoint):
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="setup",
        aws_secret_access_key="setup",
    )


def user(iam, name, actions):
    """Makes a user who may do these and nothing else; gives back `key/secret`."""
    iam.create_user(UserName=name)
    statement = {"Effect": "Allow", "Action": actions, "Resource": "*"}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    iam.put_user_policy(UserName=name, PolicyName=name, PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return f"{key['AccessKeyId']}/{key['SecretAccessKey']}"


def main():
    plain, guarded = sys.argv[1:]
    client("s3", plain).create_bucket(Bucket="suite")
    client("s3", guarded).create_bucket(Bucket="guarded")
    iam = client("iam", guarded)
    print(f"TAILRACE_TEST_S3_ALL={user(iam, 'all', ['s3:*'])}")
    print(f"TAILRACE_TEST_S3_READER={user(iam, 'reader', ['s3:GetObject'])}")
    # From now on every request is checked.
    request = urllib.request.Request(
        f"{guarded}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"}
    )
    urllib.request.urlopen(request).close()


main()
