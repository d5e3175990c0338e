/** What the back end says, and how it is asked. */
export interface Lead {
  leadId: string;
  name: string;
  about: string;
  value: number;
  stage: string;
  owner: string;
}

export interface Activity {
  activityId: string;
  leadId: string;
  kind: string;
  text: string;
  by: string;
}

export interface Session {
  user: string;
  role: "MANAGER" | "SALES";
  people: Record<string, string>;
  stages: string[];
  gateway: string;
  token: string;
}

declare module "@gapless/react" {
  interface Register {
    events: {
      "lead:created": Lead;
      "lead:updated": Lead & { by: string };
      "lead:assigned": Lead & { by: string };
      "activity:created": Activity;
      notification: { text: string; leadId: string };
    };
  }
}

let token = "";

/** Sign in, or get a fresh token. */
export async function signIn(user: string): Promise<Session> {
  const session = (await ask("POST", "/session", { user })) as Session;
  token = session.token;
  return session;
}

export async function ask(method: string, path: string, body?: object): Promise<unknown> {
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
  const answer = await fetch(path, { method, headers, ...(body && { body: JSON.stringify(body) }) });
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status}`);
  return answer.json();
}
