// The page where a person watches events arrive over each transport, and publishes one.

import { LANES, readAnswer } from "./lanes.js";

const MOST_EVENTS = 100;
const BURST = 20;

// The reference domain's events: a topic, and data that fits it.
const KINDS = [
  { type: "lead:created", topic: "crm/leads/{leadId}/created", data: { leadId: "123", name: "Acme Corp", value: 25000 } },
  { type: "lead:assigned", topic: "crm/leads/{leadId}/assigned", data: { leadId: "123", assignedTo: "7" } },
  { type: "lead:updated", topic: "crm/leads/{leadId}/updated", data: { leadId: "123", status: "qualified" } },
  { type: "activity:created", topic: "crm/activities/{activityId}/created", data: { activityId: "55", type: "CALL", leadId: "123" } },
  { type: "user:presence", topic: "crm/users/{userId}/presence", data: { userId: "7", status: "online" } },
  { type: "notification", label: "notification, to all", topic: "crm/notifications/{notificationId}", data: { notificationId: "1", title: "Maintenance at noon" } },
  { type: "notification", label: "notification, to user 7", topic: "crm/users/{userId}/notifications/{notificationId}", data: { userId: "7", notificationId: "2", title: "A lead is yours" } },
  { type: "note:collaboration", label: "note:collaboration (ephemeral)", topic: "crm/notes/{noteId}/collaboration", data: { noteId: "9", kind: "awareness", cursor: 12 } },
];

const DOORS = [
  { key: "rest", title: "REST", publish: publishOverRest },
  { key: "socketio", title: "Socket.IO", publish: (event) => lanes.socketio.client.publish(event) },
  { key: "mqtt1", title: "MQTT QoS 1", publish: (event) => lanes.mqtt.client.publish(event, 1) },
  { key: "mqtt2", title: "MQTT QoS 2", publish: (event) => lanes.mqtt.client.publish(event, 2) },
];

const by = (id) => document.getElementById(id);
const settings = { rooms: ["org:global", "lead:123", "user:7", "note:9"], token: "" };
const lanes = {}; // key → {client, node, count, twice, cut}
const events = new Map(); // id → {node, cells, sent, first, arrived}
let settingsShown = false;
const sent = new Map(); // id → {at, door}, of what this page published

// --- the four clients

function makeLane(Lane) {
  const node = element("article", { className: `lane ${Lane.key}` });
  const state = element("p", { className: "state", textContent: "connecting" });
  const number = element("span", { textContent: "0" });
  const twice = element("span", { className: "twice" });
  const count = element("p", { className: "count" }, number, " ", element("small", { textContent: "events" }), " ", twice);
  const button = element("button", { type: "button", textContent: "Cut" });
  button.setAttribute("aria-label", `Cut ${Lane.title}`);
  node.append(element("h3", { textContent: Lane.title }), state, count, button);
  by("lanes").append(node);
  const lane = (lanes[Lane.key] = { Lane, node, state, number, twiceNode: twice, button, count: 0, twice: 0, cut: false });
  button.addEventListener("click", () => {
    lane.cut = !lane.cut;
    if (lane.cut) lane.client.cut();
    else lane.client.connect();
  });
}

function startLane(lane) {
  lane.client?.cut();
  lane.cut = false;
  const client = new lane.Lane(settings, {
    onState(state, words) {
      if (lane.client !== client) return;
      lane.node.dataset.state = state;
      lane.state.textContent = words;
      if (/token|no room|may not hear/.test(words)) showSettings();
      lane.button.textContent = lane.cut ? "Connect" : "Cut";
      lane.button.setAttribute("aria-label", `${lane.button.textContent} ${lane.Lane.title}`);
    },
    onEvent: (event) => lane.client === client && arrived(lane, event),
  });
  lane.client = client;
  Promise.resolve(client.connect()).catch((error) => {
    lane.state.textContent = error.message;
    setTimeout(() => lane.client === client && !lane.cut && startLane(lane), 3000);
  });
}

/** Once: whoever closes it again is left alone. */
function showSettings() {
  if (!settingsShown) by("token").closest("details").open = true;
  settingsShown = true;
}

// --- the events

function arrived(lane, event) {
  const now = performance.now();
  const entry = events.get(event.id) ?? show(event, now);
  const cell = entry.cells[lane.Lane.key];
  cell.times++;
  lane.count++;
  lane.number.textContent = lane.count;
  if (cell.times > 1) {
    lane.twice++;
    lane.twiceNode.textContent = `${lane.twice} twice`;
    cell.node.classList.add("twice");
    cell.value.textContent = `${cell.times} times`;
    return;
  }
  cell.node.classList.add("here");
  cell.value.textContent = entry.sent ? `${ms(now - entry.sent.at)}` : now === entry.first ? "first" : `+${ms(now - entry.first)}`;
  if (event.position) entry.position.textContent = event.position;
  if (++entry.arrived === LANES.length) {
    by("live").textContent = `${event.type} arrived over all ${LANES.length} transports`;
  }
}

function show(event, now) {
  const own = sent.get(event.id);
  const position = element("code", { textContent: event.position ?? "ephemeral, not logged" });
  const cells = {};
  const arrivals = element("div", { className: "arrivals" });
  for (const Lane of LANES) {
    const value = element("b", { textContent: "–" });
    const node = element("div", { className: `arrival ${Lane.key}` }, element("span", { textContent: shortTitle(Lane) }), value);
    cells[Lane.key] = { node, value, times: 0 };
    arrivals.append(node);
  }
  const data = typeof event.data === "string" ? event.data : JSON.stringify(event.data);
  const node = element(
    "li",
    { className: "event" },
    element("div", { className: "head" },
      element("span", { className: "type", textContent: event.type }),
      element("code", { className: "data", textContent: data, title: data }),
    ),
    element("div", { className: "meta" },
      element("span", {}, own ? `published here over ${own.door}` : "published elsewhere"),
      element("code", { textContent: event.topic }),
      element("span", {}, event.position ? "at " : "", position),
      element("span", {}, "id ", element("code", { textContent: event.id })),
    ),
    arrivals,
  );
  by("empty").hidden = true;
  by("events").prepend(node);
  const entry = { node, cells, position, sent: own, first: now, arrived: 0 };
  events.set(event.id, entry);
  if (events.size > MOST_EVENTS) forget(events.keys().next().value);
  return entry;
}

function forget(id) {
  events.get(id).node.remove();
  events.delete(id);
  sent.delete(id);
}

const shortTitle = (Lane) => ({ mqtt: "MQTT", sse: "SSE", poll: "Poll" })[Lane.key] ?? Lane.title;
const ms = (milliseconds) => (milliseconds < 10 ? `${milliseconds.toFixed(1)} ms` : milliseconds < 10_000 ? `${Math.round(milliseconds)} ms` : `${Math.round(milliseconds / 1000)} s`);

// --- publishing

async function publishOverRest(event) {
  const headers = { "content-type": "application/json" };
  if (settings.token) headers.authorization = `Bearer ${settings.token}`;
  await readAnswer(await fetch("/api/events", { method: "POST", headers, body: JSON.stringify(event) }));
}

function readForm() {
  const kind = KINDS[by("kind").value];
  const data = JSON.parse(by("data").value);
  const topic = kind.topic.replace(/\{(\w+)\}/g, (_, name) => {
    if (!/^[^/+#]+$/.test(String(data?.[name] ?? ""))) throw new Error(`the data needs a ${name}`);
    return data[name];
  });
  return { type: kind.type, topic, data };
}

async function publish(times) {
  const outcome = by("outcome");
  outcome.className = "outcome";
  try {
    const form = readForm();
    const door = DOORS.find(({ key }) => key === new FormData(by("publish")).get("door"));
    const begun = performance.now();
    await Promise.all(Array.from({ length: times }, () => {
      const event = { ...form, id: newId(), userId: "7" };
      sent.set(event.id, { at: performance.now(), door: door.title });
      return door.publish(event);
    }));
    outcome.textContent = `${times === 1 ? "Acknowledged" : `All ${times} acknowledged`} over ${door.title} after ${ms(performance.now() - begun)}`;
  } catch (error) {
    outcome.className = "outcome bad";
    outcome.textContent = `Not published: ${error.message}`;
  }
}

// crypto.randomUUID needs a secure origin; this page may be on plain HTTP in a local network.
const newId = () => `page-${Date.now().toString(36)}-${[...crypto.getRandomValues(new Uint32Array(3))].map((part) => part.toString(36)).join("")}`;

// --- the form

function showTopic() {
  try {
    by("topic").textContent = readForm().topic;
    by("data").removeAttribute("aria-invalid");
  } catch (error) {
    by("topic").textContent = error instanceof SyntaxError ? "the data is not JSON" : error.message;
    by("data").setAttribute("aria-invalid", "true");
  }
}

function fillData() {
  by("data").value = JSON.stringify(KINDS[by("kind").value].data, null, 2);
  showTopic();
}

function element(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

KINDS.forEach((kind, index) => by("kind").append(element("option", { value: index, textContent: kind.label ?? kind.type })));
DOORS.forEach((door, index) => {
  const input = element("input", { type: "radio", name: "door", value: door.key, checked: index === 0 });
  by("doors").append(element("label", {}, input, door.title));
});
by("kind").addEventListener("change", fillData);
by("data").addEventListener("input", showTopic);
by("burst").addEventListener("click", () => publish(BURST));
by("publish").addEventListener("submit", (submission) => {
  submission.preventDefault();
  publish(1);
});
by("clear").addEventListener("click", () => {
  [...events.keys()].forEach(forget);
  by("empty").hidden = false;
});
by("settings").addEventListener("submit", (submission) => {
  submission.preventDefault();
  settings.rooms = by("rooms").value.split(",").map((room) => room.trim()).filter(Boolean);
  settings.token = by("token").value;
  Object.values(lanes).forEach(startLane);
});
by("rooms").value = settings.rooms.join(", ");
fillData();
LANES.forEach(makeLane);
Object.values(lanes).forEach(startLane);
