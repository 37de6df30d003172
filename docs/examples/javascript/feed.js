// Prints every event that a token may see, over HTTP: its position and the CloudEvent.
import { EventSource } from "eventsource";

const [url, after = "0"] = process.argv.slice(2);
const authorization = `Bearer ${process.env.TOKEN}`;

// When a connection ends, EventSource reconnects and sends the id of the last event.
const feed = new EventSource(`${url}/chat-sessions/events?after=${after}`, {
  fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, authorization } }),
});
for (const type of ["created", "started", "accepted", "rejected", "finished", "updated", "corrected"]) {
  feed.addEventListener(`chat-session.${type}`, ({ lastEventId, data }) => console.log(lastEventId, data));
}
feed.addEventListener("cut-off", ({ data }) => console.error(JSON.parse(data).detail));
feed.addEventListener("error", ({ message }) => {
  console.error(message ?? "the connection was closed");
  // After a response such as 401 or 503 it does not retry; a supervisor does.
  if (feed.readyState === EventSource.CLOSED) process.exitCode = 1;
});
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => feed.close());
