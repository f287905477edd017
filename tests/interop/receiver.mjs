// A receiver of webhooks that says of every request whether it is genuine, and imports nothing of paperboy.
//
// Usage: receiver.mjs SNIPPET MODULES, where SNIPPET is a module with the `verify` of docs/receiver.md, and
// MODULES the folder in which `npm ci` ran. What it reads and prints is told in receiver.py.

import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [snippet, modules] = process.argv.slice(2);
const { verify: shown } = createRequire(import.meta.url)(snippet);
const { Webhook } = createRequire(`${modules}/`)("standardwebhooks");

const known = new Map();
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

function library(secret, headers, body) {
  new Webhook(secret).verify(body, headers, { jsonParse: false });
  return true;
}

function github(secret, headers, body) {
  const expected = Buffer.from("sha256=" + createHmac("sha256", secret).update(body).digest("hex"));
  const given = Buffer.from(headers["x-hub-signature-256"]);
  return given.length === expected.length && timingSafeEqual(given, expected);
}

const verifiers = {
  standard: { standardwebhooks: library, "docs/receiver.md": shown },
  hmac: { "node:crypto": github },
};

function isGenuine(verify, secret, headers, body) {
  try {
    return Boolean(verify(secret, headers, body));
  } catch (error) {
    // A programming mistake is no verdict, except over a header that is not there.
    if (error instanceof ReferenceError || error instanceof SyntaxError) throw error;
    return false;
  }
}

function judge(path, headers, body) {
  const { scheme, secrets } = known.get(path);
  const answers = Object.entries(verifiers[scheme]).map(([name, verify]) => [
    name,
    secrets.map((secret) => isGenuine(verify, secret, headers, body)),
  ]);
  const sha256 = createHash("sha256").update(body).digest("hex");
  say({ path, id: headers["webhook-id"], sha256, verified: Object.fromEntries(answers) });
}

const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  judge(request.url, request.headers, Buffer.concat(chunks));
  response.writeHead(204).end();
});

server.listen(0, "127.0.0.1", () => {
  say({ port: server.address().port });
  const input = createInterface({ input: process.stdin });
  input.on("line", (line) => {
    const told = JSON.parse(line);
    if (told.scheme) {
      known.set(told.path, told);
      say({ known: told.path });
    } else {
      judge(told.path, told.headers, Buffer.from(told.body, "base64"));
    }
  });
  // Until whoever started this closes the pipe, or ends.
  input.on("close", () => process.exit());
});
