// The OpenAPI document as a page.

function made(tag, ...content) {
  const element = document.createElement(tag);
  element.append(...content);
  return element;
}

function kindOf({ enum: words, type, minimum, maximum, items, maxItems, default: usual }) {
  const kind = words ? words.join(", ") : items ? `${items.type}, repeated up to ${maxItems} times` : type;
  const bounds = minimum === undefined ? "" : ` from ${minimum} to ${maximum}`;
  return `${kind}${bounds}${usual === undefined ? "" : `; by default ${usual}`}`;
}

function section(path, method, operation) {
  const types = (content) => made("code", Object.keys(content).join(", "));
  const rows = operation.parameters.map(({ name, description, schema }) =>
    made("div", made("dt", made("code", name)), made("dd", `${description} (${kindOf(schema)})`)));
  const takes = operation.requestBody ? ["takes ", types(operation.requestBody.content), "; "] : [];
  return made("section",
    made("h2", made("code", `${method.toUpperCase()} ${path}`)),
    made("p", operation.summary),
    made("p", ...takes, "gives ", types(operation.responses["200"].content)),
    made("dl", ...rows));
}

const { paths } = await (await fetch("openapi.json")).json();
document.getElementById("paths").append(...Object.entries(paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => section(path, method, operation))));
