// A hybrid client in Node that counts: `{"ready":true}`, then for each line on standard input: `{"until":N}`, answered by
// `{"count":N}` once N events were handled, and `{"heap":true}`, answered by the bytes in use after a collection of garbage.
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
  say({ count });
};
const heap = () => {
  collect();
  say({ heap: process.memoryUsage().heapUsed });
};
rt.on("gap", ({ reason }) => (wrong ??= `a gap: ${reason}`));
rt.on("error", ({ error }) => (wrong ??= error.code));
rt.room("org:global").on("lead:updated", ({ n }) => {
  if (n !== count++) wrong ??= `${n} in place of ${count - 1}`;
  if (wrong) say({ wrong });
  if (count >= wanted) tell();
});
createInterface({ input: process.stdin }).on("line", (line) => {
  const asked = JSON.parse(line);
  if (asked.heap) return setImmediate(heap);
  wanted = asked.until;
  if (count >= wanted) tell();
}).on("close", () => process.exit(0));
await rt.room("org:global").ready();
say({ ready: true });
