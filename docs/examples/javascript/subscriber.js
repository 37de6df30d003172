// Writes every event of the log to a file, in order and once, however often it is stopped:
// NATS_URL=nats://billing:password@host:4222 node subscriber.js billing events.ndjson
import { closeSync, fsyncSync, openSync, readFileSync, truncateSync, writeSync } from "node:fs";
import { jetstream } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { CloudEvent } from "cloudevents";

const [name, path] = process.argv.slice(2);

// What an event does and how far we are is written in one step: line n is event n.
const file = openSync(path, "a+", 0o600);
const lines = readFileSync(path);
let done = lines.toString().split("\n").length - 1;
truncateSync(path, lines.lastIndexOf("\n") + 1); // half a line is none

const server = new URL(process.env.NATS_URL);
const nc = await connect({
  servers: server.host,
  user: decodeURIComponent(server.username),
  pass: decodeURIComponent(server.password),
  maxReconnectAttempts: -1,
});
const consumer = await jetstream(nc, { domain: "CHAT_SESSIONS" }).consumers.get("CHAT_SESSIONS", name);
const messages = await consumer.consume();
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => messages.close());

// An error ends the process: the event was not acknowledged, so it comes again.
for await (const message of messages) {
  if (message.seq > done) { // else its acknowledgement was lost
    writeSync(file, JSON.stringify(cloudEvent(message)) + "\n");
    fsyncSync(file);
    done = message.seq;
  }
  message.ack(); // only now the next one comes
}
await nc.drain();
closeSync(file);

function cloudEvent(message) {
  const attributes = {};
  for (const [header, [value]] of message.headers) {
    if (header.startsWith("ce-")) attributes[header.slice(3)] = decodeURIComponent(value);
  }
  return new CloudEvent({ ...attributes, data: message.json() }, false); // dataschema is a path
}
