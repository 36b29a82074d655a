"""URLs that read objects without a signature of the reader's own.

    presign.py ENDPOINT BUCKET <KEYS    a key in each line, and for each a line
"""

import sys

import boto3

endpoint, bucket = sys.argv[1:]
client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
for line in sys.stdin:
    wanted = {"Bucket": bucket, "Key": line.strip()}
    print(client.generate_presigned_url("get_object", wanted, ExpiresIn=3600))
