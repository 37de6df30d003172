// Prints every event that a token may see, over HTTP: its position and the CloudEvent.
import { EventSource } from "eventsource";

const [url, after = "0"] = process.argv.slice(2);
const authorization = `Bearer ${process.env.TOKEN}`;

// When a connection ends, EventSource makes another, and says with which event it is.
const feed = new EventSource(`${url}/chat-sessions/events?after=${after}`, {
  fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, authorization } }),
});
for (const type of ["created", "started", "accepted", "rejected", "finished", "updated", "corrected"]) {
  feed.addEventListener(`chat-session.${type}`, ({ lastEventId, data }) => console.log(lastEventId, data));
}
feed.addEventListener("cut-off", ({ data }) => console.error(JSON.parse(data).detail));
feed.addEventListener("error", ({ message }) => {
  console.error(message ?? "the connection was closed");
  // After an answer such as a 401 or a 503 it does not try again: whoever runs this does.
  if (feed.readyState === EventSource.CLOSED) process.exitCode = 1;
});
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => feed.close());
