/** The API's documentation as one page of plain HTML: no scripts, nothing from elsewhere. */
import { curlOf } from "./curl.ts";
import {
  type ApiDocument,
  type Listed,
  type Operation,
  operationsOf,
  type Parameter,
  type Schema,
} from "./document.ts";
import { escaped, prose } from "./html.ts";
import { schemaHtml } from "./schema_html.ts";

export const STYLE = `
:root { color-scheme: light dark; --line: light-dark(#d8dee4, #3d444d);
  --soft: light-dark(#f6f8fa, #151b23); --dim: light-dark(#59636e, #9198a1);
  --link: light-dark(#0550ae, #79c0ff); }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 4rem;
  font: 16px/1.55 system-ui, sans-serif; background: light-dark(#fff, #0d1117);
  color: light-dark(#1f2328, #f0f6fc); }
a { color: var(--link); }
code, pre { font: 0.875em/1.5 ui-monospace, monospace; }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: 6px;
  padding: 0.75rem; overflow-x: auto; }
section.operation { border-top: 1px solid var(--line); padding-top: 1rem; margin-top: 1.5rem; }
h3 { margin: 0; font-size: 1rem; overflow-wrap: anywhere; }
.method { display: inline-block; min-width: 3.5rem; font-weight: 700; }
.dim { color: var(--dim); }
table { border-collapse: collapse; width: 100%; display: block; overflow-x: auto; }
th, td { text-align: left; vertical-align: top; padding: 0.3rem 0.8rem 0.3rem 0;
  border-bottom: 1px solid var(--line); }
details { margin: 0.5rem 0; }
summary { cursor: pointer; }
ul.fields { list-style: none; padding-left: 1rem; border-left: 2px solid var(--line); margin: 0.3rem 0; }
nav ul { columns: 18rem; padding-left: 1.2rem; }
`;

export function docsPage(document: ApiDocument): string {
  const { info } = document;
  const groups = grouped(document);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escaped(info.title)} API</title>
<style>${STYLE}</style>
</head>
<body>
<header>
<h1>${escaped(info.title)} API <small class="dim">${escaped(info.version)}</small></h1>
<p>${prose(info.description)}</p>
<p>As a document for tools: <a href="openapi.json">openapi.json</a></p>
</header>
<nav aria-label="Operations">${groups.map(navigationOf).join("")}</nav>
<main>
${groups.map((group) => groupHtml(group, document)).join("\n")}
</main>
</body>
</html>
`;
}

interface Group {
  name: string;
  description: string;
  operations: Listed[];
}

/** Operations by their first tag; tags in the document's order, others after them. */
function grouped(document: ApiDocument): Group[] {
  const byTag = Map.groupBy(
    operationsOf(document),
    ({ operation }) => operation.tags?.[0] ?? "Other",
  );
  const known = new Map(document.tags?.map(({ name, description }) => [name, description]));
  const names = new Set([...known.keys(), ...byTag.keys()]);
  return [...names].map((name) => ({
    name,
    description: known.get(name) ?? "",
    operations: byTag.get(name) ?? [],
  }));
}

function anchorOf({ method, path }: Listed): string {
  return `${method}${path.replaceAll(/[^a-z0-9]+/gi, "-")}`.replace(/-$/, "");
}

function navigationOf({ name, operations }: Group): string {
  const items = operations.map((listed) =>
    `<li><a href="#${anchorOf(listed)}"><code>${listed.method.toUpperCase()} ${
      escaped(listed.path)
    }</code></a></li>`
  );
  return `<h2>${escaped(name)}</h2><ul>${items.join("")}</ul>`;
}

function groupHtml({ name, description, operations }: Group, document: ApiDocument): string {
  const sections = operations.map((listed) => operationHtml(listed, document)).join("\n");
  return `<h2>${escaped(name)}</h2>\n<p>${prose(description)}</p>\n${sections}`;
}

function operationHtml(listed: Listed, document: ApiDocument): string {
  const { path, method, operation } = listed;
  const schema = operation.requestBody?.content["application/json"]?.schema;
  return `<section class="operation" id="${anchorOf(listed)}">
<h3><span class="method">${method.toUpperCase()}</span> <code>${escaped(path)}</code></h3>
<p>${prose(operation.summary)}</p>
${operation.description === undefined ? "" : `<p>${prose(operation.description)}</p>`}
${parametersHtml(operation.parameters ?? [])}
${schema === undefined ? "" : bodyHtml("Body", schema, document)}
${responsesHtml(operation, document)}
<pre>${escaped(curlOf(listed, document))}</pre>
</section>`;
}

function parametersHtml(parameters: readonly Parameter[]): string {
  if (parameters.length === 0) return "";
  const rows = parameters.map((parameter) =>
    `<tr><td><code>${escaped(parameter.name)}</code></td><td class="dim">${parameter.in}</td>` +
    `<td>${prose(parameter.description)}</td></tr>`
  );
  return `<table><tr><th>Parameter</th><th>In</th><th></th></tr>${rows.join("")}</table>`;
}

function bodyHtml(title: string, schema: Schema, document: ApiDocument): string {
  return `<details><summary>${escaped(title)}</summary>${schemaHtml(schema, document)}</details>`;
}

/** Successes one by one; failures, which have one shape, together. */
function responsesHtml({ responses }: Operation, document: ApiDocument): string {
  const all = Object.entries(responses);
  const isSuccess = ([status]: [string, unknown]) => status.startsWith("2");
  const successes = all.filter(isSuccess).map(([status, r]) => responseHtml(status, r, document));
  const failures = all.filter((response) => !isSuccess(response));
  if (failures.length === 0) return successes.join("");
  const rows = failures.map(([status, { description }]) =>
    `<tr><td>${status}</td><td>${prose(description)}</td></tr>`
  );
  const [, { content = {} }] = failures[0];
  const schema = Object.values(content)[0]?.schema ?? {};
  return `${successes.join("")}<details><summary>Errors</summary><table>${rows.join("")}</table>${
    schemaHtml(schema, document)
  }</details>`;
}

function responseHtml(
  status: string,
  { description, content = {} }: Operation["responses"][string],
  document: ApiDocument,
): string {
  const title = `${status}: ${description}`;
  const types = Object.entries(content);
  if (types.length === 0) return `<p>${escaped(title)}</p>`;
  return types.map(([type, { schema }]) => bodyHtml(`${title} (${type})`, schema ?? {}, document))
    .join("");
}
