// The Service Bus emulator as a process, with the entities of `servicebus.json` and a data folder of its own.
//
// SERVICEBUS_EMULATOR_BIN names the binary. It takes free ports and prints them; after `kill` it comes back on the same
// port of AMQP with the same folder, as a user's would after a crash. Whatever happens, it ends with this process.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { request } from "node:http";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { fileURLToPath } from "node:url";

const ENTITIES = fileURLToPath(new URL("../servicebus.json", import.meta.url));
const KEY_NAME = "RootManageSharedAccessKey";
const KEY = "SAS_KEY_VALUE";
const READY =
  /^Service Bus emulator ready: REST data plane at http:\/\/127\.0\.0\.1:(\d+), AMQP at 127\.0\.0\.1:(\d+)\n(Endpoint=\S+)\n/;

const running = new Set();
process.on("exit", () => running.forEach((emulator) => emulator.abandon()));
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));

export class Emulator {
  httpPort = 0;
  amqpPort = 0;
  connectionString = "";
  /** What it said is wrong, from all of its starts. */
  complaints = "";
  #folder = mkdtempSync(join(tmpdir(), "servicebus-emulator-"));
  #child;

  static async start() {
    const emulator = new Emulator();
    running.add(emulator);
    emulator.amqpPort = await portToComeBackTo();
    await emulator.startAgain();
    return emulator;
  }

  async startAgain() {
    const binary = process.env.SERVICEBUS_EMULATOR_BIN;
    assert.ok(binary, "SERVICEBUS_EMULATOR_BIN names no binary");
    const options = {
      "--config": ENTITIES,
      "--data": join(this.#folder, "data"),
      "--http-port": 0,
      "--amqp-port": this.amqpPort,
    };
    const child = spawn(binary, Object.entries(options).flat().map(String), {
      stdio: ["ignore", "pipe", "pipe"],
      env: {},
    });
    this.#child = child;
    child.stderr.setEncoding("utf8").on("data", (text) => (this.complaints += text));
    let output = "";
    const announced = await new Promise((resolve, reject) => {
      child.on("error", reject);
      child.on("exit", (code, signal) => reject(new Error(`it ended with ${code ?? signal}: ${this.complaints}`)));
      child.stdout.setEncoding("utf8").on("data", (text) => {
        output += text;
        const ready = READY.exec(output);
        if (ready) resolve(ready);
      });
    });
    this.httpPort = Number(announced[1]);
    this.amqpPort = Number(announced[2]);
    this.connectionString = announced[3];
  }

  get processId() {
    return this.#child.pid;
  }

  /** Ends it as a power cut would: it gets no chance to write anything more. */
  async kill() {
    const ended = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await ended;
  }

  /** Ends it as its user would, and answers its exit code. */
  async stop() {
    const ended = once(this.#child, "exit");
    this.#child.kill("SIGTERM");
    const [code, signal] = await ended;
    this.abandon();
    return code ?? signal;
  }

  /** Without waiting for anything. */
  abandon() {
    running.delete(this);
    this.#child?.kill("SIGKILL");
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** A request to the REST data plane, authorised. */
  async rest(method, path, headers = {}, body = undefined) {
    const [resource] = path.split("?");
    const outgoing = request({
      host: "127.0.0.1",
      port: this.httpPort,
      agent: false,
      method,
      path: `/${path}`,
      headers: { Authorization: sharedAccessSignature(`http://127.0.0.1:${this.httpPort}/${resource}`), ...headers },
    });
    outgoing.end(body);
    const [response] = await once(outgoing, "response");
    return { status: response.statusCode, headers: response.headers, body: await buffer(response) };
  }
}

let nextPort = 10_000 + Math.floor(20_000 * Math.random());

/** A free port that the system gives to nobody by chance, not even while the emulator is down: its own lie higher. */
async function portToComeBackTo() {
  for (;;) {
    nextPort += 1;
    const server = createServer().listen(nextPort, "127.0.0.1");
    try {
      const port = nextPort;
      await once(server, "listening");
      server.close();
      await once(server, "close");
      return port;
    } catch (error) {
      if (error.code !== "EADDRINUSE") throw error;
    }
  }
}

/** The token that opens a resource for an hour. */
function sharedAccessSignature(resource) {
  const encoded = encodeURIComponent(resource);
  const expiry = Math.floor(Date.now() / 1000) + 3600;
  const signature = createHmac("sha256", KEY).update(`${encoded}\n${expiry}`).digest("base64");
  return `SharedAccessSignature sr=${encoded}&sig=${encodeURIComponent(signature)}&se=${expiry}&skn=${KEY_NAME}`;
}
