import { ConnectionStatus, RealtimeProvider } from "@gapless/react";
import "@gapless/react/status.css";
import { createRoot } from "react-dom/client";
import { Board } from "./board.tsx";
import { signIn } from "./crm.ts";
import "./style.css";

const user = new URLSearchParams(location.search).get("user") ?? "max";
const me = await signIn(user);

createRoot(document.getElementById("root")!).render(
  <RealtimeProvider options={{ url: me.gateway, token: async () => (await signIn(user)).token }}>
    <header>
      <h1>Leads</h1>
      <nav aria-label="Signed in as">
        {Object.entries(me.people).map(([key, name]) => (
          <a key={key} href={`?user=${key}`} aria-current={key === user ? "page" : undefined} title={name}>{name.split(" ")[0]}</a>
        ))}
      </nav>
      <ConnectionStatus />
    </header>
    <Board me={me} />
  </RealtimeProvider>,
);
