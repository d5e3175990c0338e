// Bundles a package as an application would, and compares its size with the bound in its package.json ("sizeLimit").
// What is loaded by `import()`, only when it is used, does not count; that it can be bundled for a browser is shown too.
import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const manifest = JSON.parse(readFileSync("package.json", "utf8"));
const loadedLater = {
  name: "loaded-later",
  setup: ({ onResolve }) => onResolve({ filter: /^\./ }, ({ kind, path }) => (kind === "dynamic-import" ? { path, external: true } : undefined)),
};
const options = {
  entryPoints: ["dist/index.js"], bundle: true, minify: true, format: "esm", platform: "browser", target: "es2022", write: false,
  external: Object.keys({ ...manifest.peerDependencies, ...manifest.dependencies }), legalComments: "none",
};
await build({ ...options, splitting: true, outdir: "bundled" });
const { outputFiles } = await build({ ...options, plugins: [loadedLater] });
const size = gzipSync(outputFiles[0].contents, { level: 9 }).length;
console.log(`${manifest.name}: ${size} bytes gzipped, of ${manifest.sizeLimit} at most`);
if (size > manifest.sizeLimit) process.exit(1);
