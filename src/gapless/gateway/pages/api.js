// Shows /openapi.json: every operation with its parameters, bodies, answers and a curl line.
// Only what our own document uses is handled (OpenAPI 3.1).

const response = await fetch("/openapi.json");
const api = await response.json();
const main = document.getElementById("api");

document.title = `${api.info.title} ${api.info.version}: HTTP API`;
document.getElementById("title").textContent = `${api.info.title} ${api.info.version}`;
document.getElementById("summary").textContent = api.info.summary;
document.getElementById("loading").remove();
main.append(...api.info.description.trim().split("\n\n").map(prose));
for (const tag of api.tags) {
  main.append(make("h2", { textContent: tag.name }), make("p", { className: "hint", textContent: tag.description }));
  for (const [path, operations] of Object.entries(api.paths)) {
    for (const [verb, operation] of Object.entries(operations)) {
      if (operation.tags.includes(tag.name)) main.append(showOperation(path, verb, operation));
    }
  }
}
main.append(make("h2", { textContent: "Shapes" }));
for (const [name, schema] of Object.entries(api.components.schemas)) main.append(showSchema(name, schema));
openTarget();
window.addEventListener("hashchange", openTarget);

function showOperation(path, verb, operation) {
  const body = make("div", {}, prose(operation.description));
  if (operation.parameters) {
    body.append(make("h3", { textContent: "Parameters" }), parameterTable(operation.parameters));
  }
  body.append(make("h3", { textContent: "Try it" }), code(curl(path, verb, operation)));
  for (const [type, content] of Object.entries(operation.requestBody?.content ?? {})) {
    for (const { summary, value } of Object.values(content.examples ?? {})) {
      body.append(make("h3", { textContent: `Body: ${summary} (${type})` }), code(value));
    }
  }
  body.append(make("h3", { textContent: "Answers" }));
  const rows = Object.entries(operation.responses).map(([status, answer]) => [status, resolve(answer).description]);
  body.append(table(["Status", "Meaning"], rows));
  for (const [status, answer] of Object.entries(operation.responses)) {
    if (Number(status) >= 300) continue;
    for (const example of examplesOf(answer)) body.append(code(example));
  }
  const summary = make("summary", {},
    make("span", { className: "verb", textContent: verb.toUpperCase() }),
    make("code", { textContent: path }),
    make("span", { className: "hint", textContent: operation.summary }),
  );
  return make("details", { className: "operation", id: operation.operationId, open: path === "/api/events" && verb === "post" }, summary, body);
}

function parameterTable(parameters) {
  const rows = parameters.map(({ name, in: where, required, description, schema }) => {
    const notes = [schema.type];
    if (where !== "query") notes.push(where);
    if (required) notes.push("required");
    if (schema.default !== undefined) notes.push(`default ${schema.default}`);
    if (schema.maximum !== undefined) notes.push(`at most ${schema.maximum}`);
    return [name, notes.join(", "), description];
  });
  return table(["Name", "Form", "Meaning"], rows);
}

function showSchema(name, schema) {
  const required = new Set(schema.required);
  const rows = Object.entries(schema.properties ?? {}).map(([key, property]) => [
    key,
    formOf(property) + (required.has(key) ? ", always there" : ""),
    describe(property),
  ]);
  const summary = make("summary", {}, make("code", { textContent: name }), make("span", { className: "hint", textContent: schema.description ?? "" }));
  return make("details", { className: "operation", id: `schema-${name}` }, summary, make("div", {}, table(["Field", "Form", "Meaning"], rows)));
}

function formOf(schema) {
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.anyOf) return schema.anyOf.map(formOf).join(" or ");
  if (schema.type === "array") return `list of ${formOf(schema.items ?? {})}`;
  return schema.type ?? "any";
}

function describe(schema) {
  return schema.description ?? (schema.anyOf ?? []).map(describe).filter(Boolean).join(" ") ?? "";
}

function examplesOf(answer) {
  const found = [];
  for (const content of Object.values(resolve(answer).content ?? {})) {
    if (content.example !== undefined) found.push(content.example);
    for (const { value } of Object.values(content.examples ?? {})) found.push(value);
  }
  return found;
}

function curl(path, verb, operation) {
  const query = (operation.parameters ?? []).filter(({ required }) => required).map(({ name, example }) => `${name}=${example}`);
  const url = `'${location.origin}${path}${query.length ? `?${query.join("&")}` : ""}'`;
  if (verb === "get") return `curl ${path.endsWith("stream") ? "-N " : ""}${url}`;
  const { example, examples } = operation.requestBody.content["application/json"];
  return `curl ${url} -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify(example ?? examples.one.value)}'`;
}

function resolve(node) {
  if (!node.$ref) return node;
  return node.$ref.slice(2).split("/").reduce((at, key) => at[key], api);
}

function openTarget() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target) target.open = true;
}

function code(value) {
  return make("pre", { tabIndex: 0 }, make("code", { textContent: typeof value === "string" ? value.trimEnd() : JSON.stringify(value, null, 2) }));
}

function table(headings, rows) {
  const head = make("tr", {}, ...headings.map((textContent) => make("th", { textContent, scope: "col" })));
  const body = rows.map(([first, ...rest]) =>
    make("tr", {}, make("td", {}, make("code", { textContent: first })), ...rest.map((text) => make("td", {}, ...words(text)))),
  );
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...body));
}

// Prose with `code` in backticks, as in the document.
function prose(text) {
  return make("p", {}, ...words(text));
}

function words(text) {
  return text.split("`").map((part, index) => (index % 2 ? make("code", { textContent: part }) : part));
}

function make(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}
