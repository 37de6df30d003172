// Writes every event of the log to a file, in order and once, however often it is stopped.
import { openSync, readFileSync, truncateSync, writeSync } from "node:fs";
import { jetstream } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { CloudEvent } from "cloudevents";

const [name, path] = process.argv.slice(2);

// An event's effect and its position are written in one step: line n is event n.
const file = openSync(path, "as+", 0o600);
const lines = readFileSync(path);
let done = lines.toString().split("\n").length - 1;
truncateSync(path, lines.lastIndexOf("\n") + 1); // drop a torn line

const server = new URL(process.env.NATS_URL);
const nc = await connect({
  servers: server.host,
  user: decodeURIComponent(server.username),
  pass: decodeURIComponent(server.password),
  maxReconnectAttempts: -1,
});
const consumer = await jetstream(nc, { domain: "CHAT_SESSIONS" }).consumers.get("CHAT_SESSIONS", name);
let stopped = false;
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => (stopped = true));

// An error ends the process, and a supervisor restarts it.
while (!stopped) {
  const message = await consumer.next({ expires: 1_000 });
  if (message === null) continue;
  if (message.seq > done) { // else its acknowledgement was lost
    writeSync(file, JSON.stringify(cloudEvent(message)) + "\n");
    done = message.seq;
  }
  await message.ackAck(); // now the next one may come
}
await nc.drain();

function cloudEvent(message) {
  const attributes = {};
  for (const [header, [value]] of message.headers) {
    if (header.startsWith("ce-")) attributes[header.slice(3)] = decodeURIComponent(value);
  }
  // Not strict: the first events name their schema by a path.
  return new CloudEvent({ ...attributes, data: message.json() }, false);
}
