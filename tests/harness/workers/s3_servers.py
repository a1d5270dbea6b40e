"""Two S3 servers over one folder, whose folders are the buckets: hadro, which checks signatures, and localbucket, which does not. Says
where they listen, and ends with its standard input. usage: s3_servers.py FOLDER ACCESS_KEY SECRET_KEY
"""

import json
import pathlib
import sys
import threading
from http.server import ThreadingHTTPServer

import hadro
import localbucket

folder, access_key, secret_key = sys.argv[1:]
localbucket.S3Handler.data_root = pathlib.Path(folder)
unsigned = ThreadingHTTPServer(("127.0.0.1", 0), localbucket.S3Handler)
threading.Thread(target=unsigned.serve_forever, daemon=True).start()
signed = hadro.Server(data=folder, access_key=access_key, secret_key=secret_key, region="us-east-1")
signed.start(timeout=300)
print(json.dumps({"signed": signed.endpoint, "unsigned": f"http://127.0.0.1:{unsigned.server_port}"}), flush=True)
sys.stdin.read()
