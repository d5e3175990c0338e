// A hybrid client in Node that counts: `{"ready":true}`, then for each line `N` on standard input
// `{"count":…,"heap":…}` once it has handled N events: bytes in use after a collection of garbage.
import { createInterface } from "node:readline";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { createClient } from "../../sdk/packages/core/src/client.ts";

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc");
const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");
const [, , url, transport] = process.argv;

let count = 0;
let wanted = Infinity;
let wrong = null;
const rt = createClient({ url, transports: [transport] });
const tell = () => {
  wanted = Infinity;
  collect();
  say({ count, heap: process.memoryUsage().heapUsed });
};
rt.on("gap", ({ reason }) => (wrong ??= `a gap: ${reason}`));
rt.on("error", ({ error }) => (wrong ??= error.code));
rt.room("org:global").on("lead:updated", ({ n }) => {
  if (n !== count++) wrong ??= `${n} in place of ${count - 1}`;
  if (wrong) say({ wrong });
  if (count >= wanted) setImmediate(tell);
});
createInterface({ input: process.stdin }).on("line", (line) => {
  wanted = Number(line);
  if (count >= wanted) tell();
}).on("close", () => process.exit(0));
await rt.room("org:global").ready();
say({ ready: true });
