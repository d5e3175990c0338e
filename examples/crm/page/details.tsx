import { usePresence, useRoom } from "@gapless/react";
import { useState, type FormEvent } from "react";
import { ask, type Activity, type Lead, type Session } from "./crm.ts";

const KINDS = ["call", "mail", "meeting"];

interface DetailsProps {
  me: Session;
  lead: Lead;
  activities: Activity[];
  onBack: () => void;
}

/** One lead: who has it on their page, what is done about it. */
export function Details({ me, lead, activities, onBack }: DetailsProps) {
  const room = `lead:${lead.leadId}`;
  const { state } = useRoom(room); // who hears it is here
  const people = usePresence(room).filter(({ userId }) => userId in me.people);
  const [problem, setProblem] = useState("");
  const send = (method: string, path: string, body: object) =>
    ask(method, `/leads/${lead.leadId}${path}`, body).then(() => setProblem(""), (error: Error) => setProblem(error.message));
  const add = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const form = event.currentTarget;
    const { kind, text } = Object.fromEntries(new FormData(form)) as { kind: string; text: string };
    if (!text.trim()) return;
    form.reset();
    void send("POST", "/activities", { kind, text });
  };
  return (
    <article aria-label={lead.name}>
      <div className="title">
        <button type="button" className="back" onClick={onBack}>‹ Leads</button>
        <h2>{lead.name}</h2>
        <ul className="people" aria-label="Here" data-state={state}>
          {people.map(({ userId }) => <li key={userId} title={me.people[userId]}>{me.people[userId]?.slice(0, 1)}</li>)}
        </ul>
      </div>
      <p>{lead.about}</p>
      <div className="fields">
        <label>Stage
          <select value={lead.stage} onChange={({ target }) => void send("PATCH", "", { stage: target.value })}>
            {me.stages.map((stage) => <option key={stage}>{stage}</option>)}
          </select>
        </label>
        <label>Owner
          <select value={lead.owner} disabled={me.role !== "MANAGER"} onChange={({ target }) => void send("PATCH", "", { owner: target.value })}>
            {Object.entries(me.people).map(([key, name]) => <option key={key} value={key}>{name}</option>)}
          </select>
        </label>
      </div>
      <form onSubmit={add}>
        <select name="kind" aria-label="Kind">{KINDS.map((kind) => <option key={kind}>{kind}</option>)}</select>
        <input name="text" aria-label="What was done" placeholder="What was done?" autoComplete="off" />
        <button type="submit">Add</button>
      </form>
      {problem && <p className="problem" role="alert">{problem}</p>}
      <ol className="activities">
        {[...activities].reverse().map(({ activityId, kind, text, by }) => (
          <li key={activityId}><b>{kind}</b> {text} <small>{me.people[by]}</small></li>
        ))}
      </ol>
    </article>
  );
}
