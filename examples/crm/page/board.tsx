import { useClientEvent, useEvent, useRoom } from "@gapless/react";
import { useCallback, useEffect, useState } from "react";
import { ask, type Activity, type Lead, type Session } from "./crm.ts";
import { Details } from "./details.tsx";

/** The leads that somebody may see, kept up to date. */
export function Board({ me }: { me: Session }) {
  const [leads, setLeads] = useState<Lead[]>([]);
  const [activities, setActivities] = useState<Activity[]>([]);
  const [selected, setSelected] = useState<string | null>(null);
  const [note, setNote] = useState("");

  const load = useCallback(async () => {
    const all = (await ask("GET", "/leads")) as { leads: Lead[]; activities: Activity[] };
    setLeads(all.leads);
    setActivities(all.activities);
  }, []);
  const changed = (lead: Lead) => setLeads((before) => before.map((one) => (one.leadId === lead.leadId ? { ...one, ...lead } : one)));
  const added = (activity: Activity) =>
    setActivities((before) => (before.some(({ activityId }) => activityId === activity.activityId) ? before : [...before, activity]));

  useEffect(() => void load(), [load]);
  useClientEvent("gap", () => void load()); // events are gone
  useClientEvent("error", ({ room }) => room && void load()); // a lead was taken away
  useEvent(`user:${me.user}`, "notification", ({ text }) => {
    setNote(text);
    void load(); // a lead came
  });
  useEffect(() => {
    const timer = setTimeout(() => setNote(""), 6000);
    return () => clearTimeout(timer);
  }, [note]);

  // A manager hears everything in one room; sales people hear their leads, one by one.
  const rooms = me.role === "MANAGER" ? ["org:global"] : leads.map(({ leadId }) => `lead:${leadId}`);
  const lead = leads.find(({ leadId }) => leadId === selected);
  return (
    <main data-open={lead ? "" : undefined}>
      {rooms.map((room) => <Follow key={room} room={room} onJoined={load} onLead={changed} onActivity={added} />)}
      <ul className="leads">
        {leads.map((one) => (
          <li key={one.leadId}>
            <button type="button" aria-pressed={one.leadId === selected} onClick={() => setSelected(one.leadId)}>
              <strong>{one.name}</strong>
              <span className="stage" data-stage={one.stage} key={one.stage}>{one.stage}</span>
              <small>{one.about}</small>
              <small className="value">{money(one.value)} · {me.people[one.owner]}</small>
            </button>
          </li>
        ))}
      </ul>
      {lead
        ? <Details key={lead.leadId} me={me} lead={lead} activities={activities.filter(({ leadId }) => leadId === lead.leadId)} onBack={() => setSelected(null)} />
        : <p className="empty">Choose a lead. Open the page as somebody else in a second window, and change something there.</p>}
      <p className="note" role="status">{note}</p>
    </main>
  );
}

interface FollowProps {
  room: string;
  onJoined: () => void;
  onLead: (lead: Lead) => void;
  onActivity: (activity: Activity) => void;
}

/** Hear a room. The state is loaded once the room is heard: nothing falls between the two. */
function Follow({ room, onJoined, onLead, onActivity }: FollowProps) {
  const { state } = useRoom(room);
  useEffect(() => {
    if (state === "joined") onJoined();
  }, [state, onJoined]);
  useEvent(room, "lead:updated", onLead);
  useEvent(room, "lead:assigned", onLead);
  useEvent(room, "activity:created", onActivity);
  return null;
}

const money = (value: number) => value.toLocaleString("en", { style: "currency", currency: "EUR", maximumFractionDigits: 0 });
