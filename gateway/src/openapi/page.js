// Shows the document of the edge, and tries it. Whatever comes from a contract is text, never markup.
"use strict";

const main = document.getElementById("main");

function make(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) made[key] = value;
  made.append(...children);
  return made;
}

// An example of a schema, deep enough to be of use.
function example(schema, all, depth = 0) {
  if (!schema || depth > 4) return null;
  if (schema.$ref) return example(all[schema.$ref.split("/").pop()], all, depth);
  if (schema.enum) return schema.enum[0];
  if (schema.anyOf) return example(schema.anyOf[0], all, depth);
  switch (schema.type) {
    case "object": {
      const made = {};
      for (const [name, inner] of Object.entries(schema.properties || {})) made[name] = example(inner, all, depth + 1);
      return made;
    }
    case "array": return [example(schema.items, all, depth + 1)];
    case "integer": case "number": return 0;
    case "boolean": return false;
    case "string": return schema.format === "int64" || schema.format === "uint64" ? "0"
      : schema.format === "date-time" ? new Date(0).toISOString() : "";
    default: return null;
  }
}

// Reads an answer as it comes, so that streams are seen while they flow.
async function show(answer, output, stop) {
  output.textContent = `${answer.status} ${answer.statusText}\n`;
  for (const [name, value] of answer.headers) output.textContent += `${name}: ${value}\n`;
  output.textContent += "\n";
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    text += value;
    output.textContent += value;
    if (text.length > 1 << 20) { output.textContent += "\n(the rest is not shown)"; stop.abort(); return; }
  }
  try {
    output.textContent = output.textContent.slice(0, output.textContent.length - text.length)
      + JSON.stringify(JSON.parse(text), null, 2);
  } catch { /* it is no single value of JSON, and stays as it came */ }
}

function operation(path, verb, told, all) {
  const inputs = [];
  const fields = (told.parameters || []).map((parameter) => {
    const input = make("input", { placeholder: JSON.stringify(example(parameter.schema, all)) ?? "" });
    inputs.push([parameter, input]);
    const name = parameter.name + (parameter.required ? " *" : "");
    return make("label", {}, make("code", {}, name), input, make("small", {}, parameter.description || ""));
  });
  const json = told.requestBody?.content?.["application/json"];
  const body = told.requestBody && make("textarea", {
    value: json ? JSON.stringify(example(json.schema, all), null, 2) : "",
    ariaLabel: "body",
  });
  const key = make("input", { placeholder: "Bearer …", autocomplete: "off" });
  const output = make("pre", { hidden: true });
  const button = make("button", {}, "Try it");
  let stop;
  button.onclick = async () => {
    if (stop) { stop.abort(); return; }
    stop = new AbortController();
    button.textContent = "Stop";
    output.hidden = false;
    output.textContent = "…";
    let target = path;
    const query = new URLSearchParams();
    for (const [parameter, input] of inputs) {
      if (parameter.in === "path") target = target.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
      else if (input.value !== "") {
        const values = parameter.schema.type === "array" ? input.value.split(",") : [input.value];
        for (const value of values) query.append(parameter.name, value);
      }
    }
    const headers = {};
    if (key.value) headers.authorization = key.value;
    if (body) headers["content-type"] = json ? "application/json" : Object.keys(told.requestBody.content)[0];
    try {
      const url = query.size ? `${target}?${query}` : target;
      const answer = await fetch(url, { method: verb.toUpperCase(), headers, body: body?.value, signal: stop.signal });
      await show(answer, output, stop);
    } catch (error) {
      output.textContent += `\n${error}`;
    }
    stop = undefined;
    button.textContent = "Try it";
  };
  const title = make("code", { className: told.deprecated ? "deprecated" : "" }, path);
  const head = make("summary", {}, make("b", {}, verb.toUpperCase()), title, ` ${told.summary || ""}`);
  const about = make("p", {}, told.description || "");
  const authorization = make("label", {}, make("code", {}, "authorization"), key);
  return make("details", {}, head, about, ...fields, authorization, ...(body ? [body] : []), button, output);
}

async function start() {
  const told = await (await fetch("/openapi.json")).json();
  const all = told.components.schemas;
  const groups = new Map(told.tags.map((tag) => [tag.name, make("section", {},
    make("h2", {}, tag.name), make("p", {}, tag.description || ""))]));
  for (const [path, item] of Object.entries(told.paths)) {
    for (const [verb, one] of Object.entries(item)) groups.get(one.tags[0])?.append(operation(path, verb, one, all));
  }
  main.replaceChildren(...groups.values());
  document.getElementById("filter").oninput = (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const one of main.querySelectorAll("details")) one.hidden = !one.textContent.toLowerCase().includes(wanted);
  };
}

start().catch((error) => main.replaceChildren(String(error)));
