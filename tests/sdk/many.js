// Many hybrid clients of one page: `begin` makes one, `clients` has them by name.
import { createClient } from "../../sdk/packages/core/src/client.ts";
import { through } from "./links.mjs";

const clients = {};

/** `keep: false`: only count, and see that nothing is missing. */
function begin(name, { links = {}, keep = true, ...options }) {
  const rt = createClient({ ...options, user: name, tabs: false }, { loaders: through(links) });
  const client = {
    rt, shown: [], at: [], gaps: [], errors: [], statuses: [], count: 0, wrong: null,
    get over() {
      const { connection, transport } = rt.status.getSnapshot();
      return ["live", "degraded"].includes(connection) ? transport : null;
    },
  };
  rt.status.subscribe(() => {
    const { connection, transport, error } = rt.status.getSnapshot();
    const now = `${connection} ${transport} ${error?.code ?? ""}`;
    if (client.statuses.at(-1) !== now) client.statuses.push(now);
  });
  rt.on("gap", ({ reason }) => client.gaps.push(reason));
  rt.on("error", ({ error }) => client.errors.push(error.code));
  rt.room("org:global").on("lead:updated", ({ n }) => {
    if (n !== client.count++ && !keep) client.wrong ??= `${n} in place of ${client.count - 1}`;
    if (!keep) return;
    client.shown.push(n);
    client.at.push(Date.now());
  });
  clients[name] = client;
}

/** The clients that did not show each number from `first` to `last` once and in order. */
function wrong(first, last) {
  const isRight = ({ shown, gaps, errors }) =>
    shown.length === last - first + 1 && shown.every((n, index) => n === first + index) && !gaps.length && !errors.length;
  const told = ({ shown, gaps, errors, statuses }) => ({ shown, gaps, errors, statuses });
  return Object.fromEntries(Object.entries(clients).filter(([, client]) => !isRight(client)).map(([name, client]) => [name, told(client)]));
}

const all = () => Object.values(clients);

async function end() {
  await Promise.all(all().map(({ rt }) => rt.close()));
  for (const name of Object.keys(clients)) delete clients[name];
}

Object.assign(window, { begin, clients, wrong, all, end });
