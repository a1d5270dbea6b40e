"""PUTs bytes with Python's urllib, which sends all of them before it listens. Arguments: URL, how many."""

import json
import sys
import urllib.error
import urllib.request

url, byte_size = sys.argv[1:]
request = urllib.request.Request(url, data=b" " * int(byte_size), method="PUT")
request.add_header("Content-Type", "application/octet-stream")
try:
    with urllib.request.urlopen(request) as answer:
        print(json.dumps({"status": answer.status, "body": json.load(answer)}))
except urllib.error.HTTPError as refusal:
    print(json.dumps({"status": refusal.code, "body": json.load(refusal)}))
