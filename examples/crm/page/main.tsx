import { ConnectionStatus, RealtimeProvider } from "@gapless/react";
import "@gapless/react/status.css";
import { createRoot } from "react-dom/client";
import { Board } from "./board.tsx";
import { signIn } from "./crm.ts";
import "./style.css";

const user = new URLSearchParams(location.search).get("user") ?? "max";
const root = document.getElementById("root")!;
const me = await signIn(user).catch((error: Error) => {
  root.innerHTML = '<main><article><p>Nobody is signed in. Known are <a href="?user=max">max</a>, <a href="?user=sam">sam</a> and <a href="?user=kim">kim</a>.</p></article></main>';
  throw error;
});

createRoot(root).render(
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
