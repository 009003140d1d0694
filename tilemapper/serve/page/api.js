// Lists what /openapi.json says, without anything from elsewhere.
"use strict";

function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

function typeOf(schema, all) {
  if (!schema) return "";
  if (schema.$ref) {
    const { properties = {} } = all[schema.$ref.split("/").at(-1)] ?? {};
    const parts = Object.entries(properties).map(([name, part]) => `${name}: ${typeOf(part, all)}`);
    return `{ ${parts.join(", ")} }`;
  }
  return schema.type ?? schema.format ?? "";
}

function section(verb, path, operation, schemas) {
  const head = element("h3", "", element("span", `${verb.toUpperCase()} `), path);
  head.firstChild.className = "verb";
  const made = element("section", "", head, element("p", operation.description ?? operation.summary));
  const list = element("ul");
  for (const parameter of operation.parameters ?? []) {
    const optional = parameter.required ? "" : ", optional";
    list.append(element("li", `${parameter.name}: ${typeOf(parameter.schema, schemas)}${optional}`));
  }
  const body = Object.entries(operation.requestBody?.content ?? {});
  for (const [kind, { schema }] of body) list.append(element("li", `body, ${kind}: ${typeOf(schema, schemas)}`));
  for (const [status, answer] of Object.entries(operation.responses ?? {})) {
    const kinds = Object.keys(answer.content ?? {}).join(", ");
    list.append(element("li", `${status}: ${[answer.description, kinds].filter(Boolean).join(" — ")}`));
  }
  made.append(list);
  return made;
}

const page = document.getElementById("operations");
const api = await (await fetch("/openapi.json")).json();
const groups = new Map();
for (const [path, operations] of Object.entries(api.paths)) {
  for (const [verb, operation] of Object.entries(operations)) {
    const group = operation.tags?.[0] ?? "other";
    if (!groups.has(group)) groups.set(group, element("div", "", element("h2", group)));
    groups.get(group).append(section(verb, path, operation, api.components?.schemas ?? {}));
  }
}
page.append(...groups.values());
