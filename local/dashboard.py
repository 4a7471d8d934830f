"""Shows the dashboard of the local cloud to a browser: GET /x answers s3://<bucket>/dashboard/x, and nothing else.

The bucket is as closed here as on AWS, where something of the team's (a CDN, a VPN) stands in front of it.
"""

import argparse
import http.server
import json
from pathlib import Path
from urllib.parse import unquote, urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError


def handler(endpoint: str, outputs: Path) -> type[http.server.BaseHTTPRequestHandler]:
    store = boto3.client("s3", endpoint_url=endpoint)

    class Dashboard(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path).lstrip("/")
            if path == "health":
                self._answer(200, "text/plain", b"ok")
                return
            try:
                # Read each time: the bucket is deployed after this server has started.
                bucket = json.loads(outputs.read_text())["bucket"]["value"]
                found = store.get_object(Bucket=bucket, Key=f"dashboard/{path or 'index.html'}")
            except FileNotFoundError:
                self._answer(503, "text/plain", b"Nothing is deployed yet: make up")
            except ClientError as error:
                missing = error.response["Error"]["Code"] == "NoSuchKey"
                self._answer(*((404, "text/plain", b"Not there: the first run writes it") if missing
                               else (502, "text/plain", str(error).encode())))
            except BotoCoreError as error:
                self._answer(502, "text/plain", str(error).encode())
            else:
                self._answer(200, found["ContentType"], found["Body"].read())

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

    return Dashboard


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--outputs", type=Path, required=True)
    arguments = parser.parse_args()
    serving = handler(arguments.endpoint, arguments.outputs)
    http.server.ThreadingHTTPServer(("127.0.0.1", arguments.port), serving).serve_forever()
