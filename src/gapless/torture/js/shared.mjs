// What the JavaScript clients and publishers under torture share: content, journals, packages, their end.
import { createHash } from "node:crypto";
import { ftruncateSync, openSync, readFileSync, writeSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";

export const config = JSON.parse(readFileSync(process.argv[2], "utf8"));

/** A stock package, from the node_modules that the configuration names. */
export const load = (name) => createRequire(join(config.modules, "x.js"))(name);

const sha256 = (text) => createHash("sha256").update(text).digest("hex");

/** As `gapless.torture.content.data_of`. */
export function dataOf(publisher, n) {
  const digest = sha256(`${publisher}/${n}`);
  const size = (n + 1) % 500 === 0 ? 32768 : (n + 1) % 25 === 0 ? 4096 : 64;
  const lead = 1 + (parseInt(digest.slice(0, 4), 16) % 5);
  return { leadId: String(lead), p: publisher, n, text: digest.repeat(size / digest.length) };
}

export const topicOf = (data) => `crm/leads/${data.leadId}/updated`;

/** As `gapless.torture.content.fingerprint`. */
export function fingerprint(data) {
  const names = Object.keys(data).sort().join(",");
  return sha256([names, data.leadId, data.p, data.n, data.text].join("|")).slice(0, 16);
}

/** As `gapless.torture.journal.Journal`: a line is with the system when `write` returns. */
export class Journal {
  constructor(path) {
    this.file = openSync(path, "a+");
    const content = readFileSync(path);
    const whole = content.lastIndexOf(10) + 1;
    ftruncateSync(this.file, whole);
    const lines = content.subarray(0, whole).toString().split("\n").slice(0, -1);
    this.earlier = lines.map((line) => JSON.parse(line));
  }
  write(is, fields = {}) {
    const line = Buffer.from(JSON.stringify({ t: Date.now() / 1000, is, ...fields }) + "\n");
    for (let done = 0; done < line.length; ) done += writeSync(this.file, line, done);
  }
  event(data, fields) {
    if (typeof data?.p !== "string") this.write("event", { key: "?", sha: JSON.stringify(data ?? null).slice(0, 80), ...fields });
    else this.write("event", { key: `${data.p}/${data.n}`, sha: fingerprint(data), ...fields });
  }
}

/** Call `onLine` for lines of standard input; its end ends the process. */
export function commands(onLine = () => {}) {
  createInterface({ input: process.stdin }).on("line", onLine).on("close", () => process.exit(0));
}
