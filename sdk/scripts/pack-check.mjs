// Packs a package as npm would publish it, and lets publint and are-the-types-wrong look at the result.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const folder = mkdtempSync(join(tmpdir(), "gapless-pack-"));
const run = (...command) => execFileSync(command[0], command.slice(1), { stdio: ["ignore", "inherit", "inherit"] });
try {
  // npm's own entry, as an `npm` on the PATH may be another Node's.
  execFileSync(process.execPath, [process.env.npm_execpath, "pack", "--silent", "--ignore-scripts", "--pack-destination", folder]);
  const tarball = join(folder, readdirSync(folder)[0]);
  run("publint", "run", tarball, "--strict");
  run("attw", tarball, "--profile", "esm-only", ...process.argv.slice(2));
} finally {
  rmSync(folder, { recursive: true, force: true });
}
