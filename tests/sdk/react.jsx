// A small application of @gapless/react, under StrictMode: who it is, and where, is in the address.
import { StrictMode, useState } from "react";
import { createRoot } from "react-dom/client";
import { ConnectionStatus, RealtimeProvider, useConnectionStatus, useEvent, usePresence, useRealtime, useRoom } from "../../sdk/packages/react/src/index.ts";

const query = new URLSearchParams(location.search);
const room = query.get("room");
const topic = query.get("topic");
const options = {
  url: query.get("gateway"), token: async () => query.get("token"), tabs: false,
  ...(query.has("transports") ? { transports: query.get("transports").split(",") } : {}),
};
/** What handlers were called with, each call. */
window.handled = [];

function Feed() {
  const [shown, setShown] = useState([]);
  useEvent(room, "user:presence", ({ n }, { id }) => {
    window.handled.push(n);
    setShown((before) => [{ n, id }, ...before].slice(0, 8));
  });
  return <ol id="feed">{shown.map(({ n, id }) => <li key={id}>Update {n}</li>)}</ol>;
}

function People() {
  const people = usePresence(room);
  return <p id="people">{people.length ? people.map(({ userId }) => userId).join(", ") : "Nobody"}</p>;
}

function Room() {
  const { state, error } = useRoom(room);
  return <span id="room" data-state={state}>{state === "refused" ? error.message : state}</span>;
}

function Publish() {
  const rt = useRealtime();
  const [answers, setAnswers] = useState(0);
  const publish = () => rt.publish({ topic, data: { n: -1 } }).then(() => setAnswers((n) => n + 1), () => {});
  return <button type="button" id="publish" data-answers={answers} onClick={publish}>Publish</button>;
}

function Transport() {
  window.transport = useConnectionStatus(({ transport }) => transport);
  return null;
}

createRoot(document.getElementById("root")).render(
  <StrictMode>
    <RealtimeProvider options={options}>
      <header><strong>Team</strong><ConnectionStatus /></header>
      <main>
        <h1>{room} <Room /></h1>
        <h2>Here now</h2><People />
        <h2>Updates</h2><Feed />
        <Publish />
        <Transport />
      </main>
    </RealtimeProvider>
  </StrictMode>,
);
