"""A receiver of webhooks that says of every request whether it is genuine, and imports nothing of paperboy.

Usage: receiver.py SNIPPET, where SNIPPET is a file with the `verify` of docs/receiver.md.

On standard input, a JSON object a line:
  {"path", "scheme": "standard" | "hmac", "secrets"}   what requests of this path are verified with
  {"path", "headers", "body": base64}                  a request to judge that never travelled
On standard output: {"port"} first, {"known": path} for the former, and for every request
  {"path", "id", "sha256", "verified": {verifier: [one answer for each secret]}}
Every request is answered 204, for what is wanted is the verdict and not another attempt.
"""

import base64
import hashlib
import hmac
import importlib.util
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

spec = importlib.util.spec_from_file_location("snippet", sys.argv[1])
snippet = importlib.util.module_from_spec(spec)
spec.loader.exec_module(snippet)

known = {}
output = threading.Lock()


def say(line):
    with output:
        print(json.dumps(line), flush=True)


def library(secret, headers, body):
    Webhook(secret).verify(body, headers, json_parse=False)
    return True


def github(secret, headers, body):
    expected = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected, headers["x-hub-signature-256"])


VERIFIERS = {
    "standard": {"standardwebhooks": library, "docs/receiver.md": snippet.verify},
    "hmac": {"hmac": github},
}


def is_genuine(verify, secret, headers, body):
    try:
        return bool(verify(secret, headers, body))
    # What a verifier throws at a request it cannot read.
    except (WebhookVerificationError, KeyError, ValueError):
        return False


def judge(path, headers, body):
    scheme, secrets = known[path]
    verified = {
        name: [is_genuine(verify, secret, headers, body) for secret in secrets]
        for name, verify in VERIFIERS[scheme].items()
    }
    digest = hashlib.sha256(body).hexdigest()
    say({"path": path, "id": headers["webhook-id"], "sha256": digest, "verified": verified})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        judge(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
say({"port": server.server_port})
# Until whoever started this closes the pipe, or ends.
for line in sys.stdin:
    told = json.loads(line)
    if "scheme" in told:
        known[told["path"]] = (told["scheme"], told["secrets"])
        say({"known": told["path"]})
    else:
        judge(told["path"], told["headers"], base64.b64decode(told["body"]))
