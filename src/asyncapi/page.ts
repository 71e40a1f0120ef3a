import type { Handler } from "hono";
import { html } from "hono/html";
import type { AsyncApiDocument, AsyncApiMessage, AsyncApiOperation, AsyncApiReference } from "./document.ts";
import { isSchema, type JsonSchema, resolvePointer } from "./json-schema.ts";
import { style } from "./page-style.ts";

/**
 * Documented by Hono: `deno doc --lint` treats it as a type of this package.
 *
 * @internal
 */
type Route = Handler;

type Html = ReturnType<typeof html>;

/** The page loads its style from its own path, and an empty icon. */
const POLICY = "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** A recursive schema is shown this deep. */
const MAX_DEPTH = 6;

/**
 * Returns a Hono handler that shows a document as a page: without a script, and without a request to another host.
 * `?document` is the document as JSON, `?style` the style of the page.
 *
 * @example
 * ```ts
 * app.get("/asyncapi", asyncapiPage(asyncapi(contract, { info, toJsonSchema })));
 * ```
 */
export function asyncapiPage(document: AsyncApiDocument): Route {
  const json = JSON.stringify(document);
  const page = new Page(document).render();
  return async (c) => {
    c.header("Content-Security-Policy", POLICY);
    c.header("X-Content-Type-Options", "nosniff");
    c.header("Referrer-Policy", "no-referrer");
    c.header("Cache-Control", "no-cache");
    if (c.req.query("style") !== undefined) return c.body(style, 200, { "Content-Type": "text/css; charset=utf-8" });
    if (c.req.query("document") !== undefined) return c.body(json, 200, { "Content-Type": "application/json; charset=utf-8" });
    return c.html(await page);
  };
}

/** Sections of the parts of a contract that are of no channel, by tag. */
const PARTS = { requests: "Requests", questions: "Questions of the server", messages: "Messages of the server" };

class Page {
  readonly #document: AsyncApiDocument;

  constructor(document: AsyncApiDocument) {
    this.#document = document;
  }

  render(): Html {
    const { info, servers, asyncapi, channels } = this.#document;
    const tags = [...new Set(Object.values(this.#document.operations).flatMap(({ tags }) => tags.map(({ name }) => name)))];
    const ofChannels = tags.filter((tag) => tag.startsWith("channel "));
    const sections: [id: string, title: string, content: Html][] = [
      ...Object.entries(PARTS).filter(([tag]) => tags.includes(tag)).map(([tag, title]): [string, string, Html] => [
        tag,
        title,
        this.#operations(tag),
      ]),
      ...ofChannels.map((tag, index): [string, string, Html] => [`channel-${index}`, `C${tag.slice(1)}`, this.#operations(tag)]),
      ["protocol", "Protocol", this.#operations("protocol")],
      ["errors", "Errors", this.#errors()],
      ["close-codes", "Close codes", this.#closeCodes()],
    ];
    return html`
      <!doctype html>
      <html lang="en">
        <head>
          <meta charset="utf-8">
          <meta name="viewport" content="width=device-width, initial-scale=1">
          <meta name="color-scheme" content="light dark">
          <title>${info.title} ${info.version}</title>
          <link rel="icon" href="data:,">
          <link rel="stylesheet" href="?style">
        </head>
        <body>
          <header>
      <h1>${info.title} <small>${info.version}</small></h1>
      ${info.description ? html`<p class="text">${textOf(info.description)}</p>` : ""}
      <p class="text">${textOf(Object.values(channels)[0]?.description ?? "")}</p>
      ${servers
        ? html`<dl>${
          Object.entries(servers).map(([name, { protocol, host, pathname = "", description }]) =>
            html`
              <dt>${name}</dt>
              <dd><code>${protocol}://${host}${pathname}</code>${description
                ? html`
                  ${description}
                `
                : ""}</dd>
            `
          )
        }</dl>`
        : ""}
      <p><a href="?document" download="asyncapi.json">AsyncAPI ${asyncapi} document</a></p>
          </header>
          <nav aria-label="Sections">
            <ul>${sections.map(([id, title]) => html`<li><a href="#${id}">${title}</a></li>`)}</ul>
          </nav>
          <main>${sections.map(([id, title, content]) =>
            html`<section id="${id}" aria-labelledby="${id}-title"><h2 id="${id}-title">${title}</h2>${content}</section>`
          )}</main>
        </body>
      </html>
    `;
  }

  #operations(tag: string): Html {
    const operations = Object.values(this.#document.operations).filter(({ tags }) => tags.some(({ name }) => name === tag));
    return html`${operations.map((operation) => this.#operation(operation))}`;
  }

  #operation({ action, title, summary, messages, reply }: AsyncApiOperation): Html {
    const [direction, answer] = action === "receive"
      ? ["Client to server", "Server to client"]
      : ["Server to client", "Client to server"];
    return html`<details><summary><span class="arrow ${action}" role="img" aria-label="${direction}"></span> <strong>${title}</strong>
<span class="summary">${summary}</span></summary>
${messages.map((reference) => this.#message(reference, direction))}
${reply?.messages.map((reference) => this.#message(reference, `${answer}, an answer`)) ?? ""}</details>`;
  }

  #message(reference: AsyncApiReference, direction: string): Html {
    // A reference that `asyncapi` has made.
    const { title, summary, payload, examples = [] } = this.#resolve(reference.$ref) as AsyncApiMessage;
    return html`<article><h3>${title} <small>${direction}</small></h3><p>${textOf(summary)}</p>
${this.#fields(payload)}
${examples.map(({ payload }) => html`<pre><code>${JSON.stringify(payload, null, 2)}</code></pre>`)}</article>`;
  }

  /**
   * The fields of an object, and those of the objects in it.
   *
   * @param around the schemas that it is in: a recursive one ends where it comes back to itself.
   */
  #fields(schema: unknown, depth = 0, around: readonly JsonSchema[] = []): Html | string {
    const resolved = this.#follow(schema);
    if (depth > MAX_DEPTH || !resolved || around.includes(resolved)) return "";
    const open = [...around, resolved];
    const properties = Object.entries(isSchema(resolved["properties"]) ? resolved["properties"] : {});
    const required = Array.isArray(resolved["required"]) ? resolved["required"] : [];
    const { additionalProperties } = resolved;
    const rows = properties.filter(([, part]) => part !== true).map(([name, part]) =>
      this.#field(name, part, required.includes(name), depth, open)
    );
    if (isSchema(additionalProperties)) rows.push(this.#field("any name", additionalProperties, false, depth, open));
    const parts = listOf(resolved["allOf"]).map((each) => this.#fields(each, depth, open)).filter((each) => each !== "");
    const alternatives = [...listOf(resolved["anyOf"]), ...listOf(resolved["oneOf"])]
      .map((each) => this.#fields(each, depth + 1, open)).filter((each) => each !== "");
    if (rows.length + parts.length + alternatives.length === 0) return "";
    return html`${rows.length > 0 ? html`<ul class="fields">${rows}</ul>` : ""}${parts}${
      alternatives.map((each, index) => html`<p class="or">${index > 0 ? "or" : "one of"}</p>${each}`)
    }`;
  }

  #field(name: string, part: unknown, isRequired: boolean, depth: number, around: readonly JsonSchema[]): Html {
    const schema = this.#follow(part) ?? {};
    const { description, items } = schema;
    return html`<li><code>${name}</code> <span class="type">${this.#typeOf(part)}</span>${
      isRequired ? "" : html`
        <span class="optional">optional</span>
      `
    }
${typeof description === "string" ? html`<span class="summary">${textOf(description)}</span>` : ""}
${this.#fields(schema, depth + 1, around)}${
      listOf(Array.isArray(items) ? items : [items]).map((item) => this.#fields(item, depth + 1, around))
    }</li>`;
  }

  /** The type in words, such as `text, at most 64 characters`. */
  #typeOf(part: unknown, around: readonly JsonSchema[] = []): string {
    const schema = this.#follow(part);
    if (!schema || around.includes(schema)) return "any";
    const inner = (each: unknown) => this.#typeOf(each, [...around, schema]);
    if ("const" in schema) return JSON.stringify(schema["const"]);
    if (Array.isArray(schema["enum"])) return schema["enum"].map((value) => JSON.stringify(value)).join(" | ");
    const alternatives = [...listOf(schema["anyOf"]), ...listOf(schema["oneOf"])];
    if (alternatives.length > 0 && !("properties" in schema)) return [...new Set(alternatives.map(inner))].join(" | ");
    const { type, items, format, pattern } = schema;
    const name = type === "array"
      ? Array.isArray(items) ? `[${items.map(inner).join(", ")}]` : `array of ${inner(items)}`
      : Array.isArray(type)
      ? type.join(" | ")
      : typeof type === "string"
      ? type
      : "any";
    const limits = LIMITS.filter(([keyword]) => keyword in schema && !isIntegerBound(schema[keyword])).map(([keyword, sign]) =>
      `${sign} ${String(schema[keyword])}`
    );
    return [
      name,
      ...typeof format === "string" ? [format] : [],
      ...limits,
      ...typeof pattern === "string" && !format ? [`/${pattern}/`] : [],
    ].join(", ");
  }

  #errors(): Html {
    return html`<dl>${
      this.#document["x-errors"].map(({ code, meaning }) =>
        html`
          <dt><code>${code}</code></dt>
          <dd>${meaning}</dd>
        `
      )
    }</dl>`;
  }

  #closeCodes(): Html {
    return html`<dl>${
      this.#document["x-close-codes"].map(({ code, name, meaning, reconnect }) =>
        html`
          <dt><code>${code} ${name}</code></dt>
          <dd>${meaning}; ${reconnect ? "the client comes back" : "the client does not come back unchanged"}</dd>
        `
      )
    }</dl>`;
  }

  #follow(schema: unknown): JsonSchema | undefined {
    if (!isSchema(schema)) return undefined;
    return typeof schema["$ref"] === "string" ? this.#follow(this.#resolve(schema["$ref"])) : schema;
  }

  #resolve(reference: string): unknown {
    return resolvePointer(this.#document, reference);
  }
}

/** Keywords that bound a value, and how they are read. */
const LIMITS = [
  ["minLength", "length ≥"],
  ["maxLength", "length ≤"],
  ["minimum", "≥"],
  ["maximum", "≤"],
  ["exclusiveMinimum", ">"],
  ["exclusiveMaximum", "<"],
  ["minItems", "items ≥"],
  ["maxItems", "items ≤"],
] as const;

/** Whether the bound is that of a safe integer, which says nothing about the value. */
const isIntegerBound = (bound: unknown): boolean => typeof bound === "number" && Math.abs(bound) === Number.MAX_SAFE_INTEGER;

/** Parts of a text, in which those between backticks become code. */
const textOf = (text: string): unknown[] =>
  text.split(/`([^`]+)`/).map((part, index) => index % 2 ? html`<code>${part}</code>` : part);

const listOf = (value: unknown): readonly unknown[] => Array.isArray(value) ? value : [];
