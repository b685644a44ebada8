// What sessions of both clients share: their arguments, checks, and the restart in the middle.
//
//   node SESSION.mjs FOLDER HOST PORT PASSWORD PROTOCOL
//
// FOLDER has node_modules. See tests/blackbox/client_session.py.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { once } from "node:events";

const [folder, host, port, password, protocol] = process.argv.slice(2);

export const server = { host, port: Number(port), password, protocol: Number(protocol) };
export const load = createRequire(folder + "/");

// Every byte, and what begins and ends words of the protocol.
export const BINARY = Buffer.concat([Buffer.from(Array.from({ length: 256 }, (_, i) => i)), Buffer.from("\r\n$3\r\nGET\r\n")]);
export const LARGE = Buffer.alloc(4 << 20, BINARY);
export const MANY = 2000;

// Polls until ask() gives what is wanted; the test that runs the session ends it if that never comes.
export async function until(ask) {
  while (!(await ask())) await new Promise((resolve) => setTimeout(resolve, 10));
}

export async function restart() {
  process.stdout.write("restart\n");
  await once(process.stdin, "data");
}

export async function refused(promise, pattern) {
  await assert.rejects(promise, (error) => {
    assert.match(error.message, pattern);
    return true;
  });
}

// The parts of a session, one after the other; who looks for one that hangs finds its name last.
export async function run(parts, client, assert) {
  for (const part of parts) {
    console.error(part.name);
    await part(client, assert);
  }
}

export async function session(body) {
  try {
    await body(assert);
    process.exit(0);
  } catch (error) {
    console.error(error);
    process.exit(1);
  }
}
