"""Receivers as platforms' customers write them, and as the platforms' own libraries verify. Imports nothing of paperboy.

Usage: platforms.py, which prints {"port"} first, and then a JSON object a line for every request.

  /user_update   Rossum's documented example: SHA-1 over the raw body in X-Elis-Signature, exactly two parts around "=",
                 the prefix "sha1", compare_digest, 401 otherwise; answers messages and operations, ZERO becomes 0.0
  /mindee        mindee's own check of a hex HMAC-SHA256 over the raw body, here of x-invofox-signature; 401 otherwise
  /txscript      Rossum's txscript reads the body and answers what its hook would
"""

import hashlib
import hmac
import importlib.util
import json
import logging
import sys
import threading
import types
from functools import wraps
from pathlib import Path

import flask
import jmespath
from flask import jsonify, request
from werkzeug.exceptions import abort
from werkzeug.serving import make_server

SECRET_KEY = "Your secret key stored in hook.config.secret"

app = flask.Flask(__name__)
output = threading.Lock()


def say(**line):
    with output:
        print(json.dumps(line), flush=True)


@app.after_request
def tell(response):
    said = response.get_json(silent=True)
    say(path=request.path, status=response.status_code, answer=said)
    return response


def hmac_signature_required(f):
    @wraps(f)
    def authorize_request(*args, **kwargs):
        digest = hmac.new(SECRET_KEY.encode(), request.data, hashlib.sha1).hexdigest()
        try:
            prefix, signature = request.headers["X-Elis-Signature"].split("=")
        except ValueError:
            abort(401, "Incorrect header format")
        if not (prefix == "sha1" and hmac.compare_digest(signature, digest)):
            abort(401, "Authorization failed.")
        return f(*args, **kwargs)

    return authorize_request


@app.route("/user_update", methods=["POST"])
@app.route("/stranger/user_update", methods=["POST"])
@hmac_signature_required
def api_validate():
    annotation = request.get_json().get("annotation")
    if not isinstance(annotation, dict):
        abort(422)
    messages, updated_data_fields = zero_string_to_float(annotation["content"])
    return jsonify({"messages": messages, "operations": updated_data_fields})


def zero_string_to_float(annotation_tree_content):
    vat_rate_items = _search_annotation_tree(annotation_tree_content, "item_vat_rate")
    if not vat_rate_items:
        return [{"type": "error", "content": "Column with schema ID 'item_vat_rate' is missing."}], []
    updated_prices = []
    for item in vat_rate_items:
        if item["node_value"]:
            if "ZERO" in item["node_value"].upper():
                value = {"content": {"value": "0.0"}}
                updated_prices.append({"op": "replace", "id": item["node_id"], "value": value})
    return [], updated_prices


def _search_annotation_tree(content, schema_id):
    return jmespath.search(
        "[].children[].children[].children[?schema_id=='%s'][].{node_id: id, node_value: content.value}" % schema_id,
        content,
    )


def local_response():
    """mindee's class out of its own file; the rest of that package wants libraries for images and PDF."""
    folder = Path(importlib.util.find_spec("mindee").submodule_search_locations[0])
    for name, members in {
        "mindee": {},
        "mindee.error": {},
        "mindee.error.mindee_error": {"MindeeError": type("MindeeError", (Exception,), {})},
        "mindee.parsing": {},
        "mindee.parsing.common": {},
        "mindee.parsing.common.common_response": {"CommonResponse": object},
    }.items():
        module = types.ModuleType(name)
        module.__path__ = []
        vars(module).update(members)
        sys.modules[name] = module
    spec = importlib.util.spec_from_file_location("local_response", folder / "input" / "local_response.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.LocalResponse


LocalResponse = local_response()


@app.route("/mindee", methods=["POST", "PUT"])
@app.route("/stranger/mindee", methods=["POST", "PUT"])
def mindee():
    response = LocalResponse(request.data)
    if not response.is_valid_hmac_signature(SECRET_KEY, request.headers["x-invofox-signature"]):
        abort(401)
    return "", 200


@app.route("/txscript", methods=["POST"])
def txscript():
    from txscript import TxScript

    t = TxScript.from_payload(request.get_json())
    for row in t.field.line_items:
        if "ZERO" in row.item_vat_rate:
            row.item_vat_rate = "0.0"
    return jsonify(t.hook_response())


logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = make_server("127.0.0.1", 0, app, threaded=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
say(port=server.server_port)
# Until whoever started this closes the pipe, or ends.
sys.stdin.read()
