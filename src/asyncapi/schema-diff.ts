import { isSchema, type JsonSchema, resolvePointer } from "./json-schema.ts";
import { ALTERNATIVES, alternativesOf, ANY, distinguishingOf, kindOf, nameOf, NONE, sharedBy } from "./schema-alternatives.ts";
import {
  ANNOTATIONS,
  boundOf,
  equal,
  fieldsOf,
  hasReference,
  isPlain,
  isStricter,
  requiredOf,
  typeFits,
  typeName,
  valuesOf,
} from "./schema-keywords.ts";

/**
 * The effect on the values that a schema accepts. `narrowed`: it refuses some of them; `widened`: it accepts others too; `changed`:
 * both, or unknown; `compatible`: no effect on either side.
 */
export type Effect = "narrowed" | "widened" | "changed" | "compatible";

/** A difference of two schemas. */
export interface SchemaChange {
  /** Path to the part that differs, such as `items[].text`; empty: the whole value. */
  readonly path: string;
  readonly effect: Effect;
  /** What is different, such as `maxLength 500 → 100`. */
  readonly text: string;
}

/** Keywords whose greater value accepts less, and their exclusive form. */
const LOWER_BOUNDS = [["minimum", "exclusiveMinimum"], ["minLength"], ["minItems"], ["minProperties"]] as const;
/** Keywords whose greater value accepts more. */
const UPPER_BOUNDS = [["maximum", "exclusiveMaximum"], ["maxLength"], ["maxItems"], ["maxProperties"]] as const;
/** Keywords with a comparison of their own. */
const COMPARED = new Set([
  ...["type", "const", "enum", "required", "properties", "additionalProperties", "items", "additionalItems", "anyOf", "oneOf"],
  ...["allOf", "$ref", ...LOWER_BOUNDS.flat(), ...UPPER_BOUNDS.flat()],
]);

/** Lists what is different between two schemas, each with references into its own document. */
export function diffSchemas(
  before: unknown,
  after: unknown,
  documents: readonly [before: unknown, after: unknown],
): SchemaChange[] {
  const changes: SchemaChange[] = [];
  new SchemaDiff(documents, changes).compare(before, after, "");
  return changes;
}

class SchemaDiff {
  readonly #documents: readonly [unknown, unknown];
  readonly #changes: SchemaChange[];
  /** Pairs that are being compared. A recursive schema that reaches one again is not compared further. */
  readonly #inProgress: (readonly [JsonSchema, JsonSchema])[];

  constructor(
    documents: readonly [unknown, unknown],
    changes: SchemaChange[],
    inProgress: (readonly [JsonSchema, JsonSchema])[] = [],
  ) {
    this.#documents = documents;
    this.#changes = changes;
    this.#inProgress = inProgress;
  }

  compare(beforePart: unknown, afterPart: unknown, path: string): void {
    const [before, after] = [this.#follow(beforePart, 0), this.#follow(afterPart, 1)];
    if (this.#inProgress.some(([a, b]) => a === before && b === after)) return;
    this.#inProgress.push([before, after]);
    const [old, now] = [alternativesOf(before), alternativesOf(after)];
    if (old.length === 1 && now.length === 1) this.#compareOne(old[0]!, now[0]!, path);
    else this.#compareAlternatives(old, now, path);
    this.#inProgress.pop();
  }

  #compareOne(beforePart: unknown, afterPart: unknown, path: string): void {
    const [before, after] = [this.#follow(beforePart, 0), this.#follow(afterPart, 1)];
    if (equal(before, after) && !hasReference(before)) return;
    if (!this.#compareValues(before, after, path)) return;
    for (const keywords of LOWER_BOUNDS) this.#compareBound(keywords, before, after, path, -1);
    for (const keywords of UPPER_BOUNDS) this.#compareBound(keywords, before, after, path, 1);
    this.#compareFields(before, after, path);
    this.#compareItems(before, after, path);
    for (const keyword of [...ALTERNATIVES, "allOf"]) this.#compareLists(keyword, before[keyword], after[keyword], path);
    for (const keyword of new Set([...Object.keys(before), ...Object.keys(after)])) {
      if (COMPARED.has(keyword) || ANNOTATIONS.has(keyword) || equal(before[keyword], after[keyword])) continue;
      if (!(keyword in before)) this.#add(path, "narrowed", `${keyword} added`);
      else if (!(keyword in after)) this.#add(path, "widened", `${keyword} removed`);
      else this.#add(path, "changed", `${keyword} changed`);
    }
  }

  /** Compares the type, or the values that are listed. Returns whether the rest may be compared. */
  #compareValues(before: JsonSchema, after: JsonSchema, path: string): boolean {
    const [old, now] = [valuesOf(before), valuesOf(after)];
    if (old && now) {
      const [removed, added] = [old.filter((value) => !now.includes(value)), now.filter((value) => !old.includes(value))];
      if (removed.length > 0) this.#add(path, "narrowed", `${removed.join(", ")} removed`);
      if (added.length > 0) this.#add(path, "widened", `${added.join(", ")} added`);
      return true;
    }
    const [type, newType] = [before["type"], after["type"]];
    if (old || now) {
      // One side lists values, the other has a type.
      const [values, schema] = old ? [old, after] : [now!, before];
      const fits = isPlain(schema, "type") &&
        values.every((value) => schema["type"] === undefined || typeFits(JSON.parse(value), schema["type"]));
      const text = old ? `any ${typeName(newType)} instead of ${old.join(", ")}` : `only ${now!.join(", ")}`;
      this.#add(path, fits ? old ? "widened" : "narrowed" : "changed", text);
      return false;
    }
    if (type === newType) return true;
    const text = `${typeName(type)} → ${typeName(newType)}`;
    if (type === undefined || (type === "number" && newType === "integer")) this.#add(path, "narrowed", text);
    else if (newType === undefined || (type === "integer" && newType === "number")) this.#add(path, "widened", text);
    else {
      this.#add(path, "changed", text);
      return false;
    }
    return true;
  }

  /** @param sign 1 for an upper bound, where a greater value accepts more; −1 for a lower one. */
  #compareBound(keywords: readonly string[], before: JsonSchema, after: JsonSchema, path: string, sign: 1 | -1): void {
    const [old, now] = [boundOf(before, keywords, sign), boundOf(after, keywords, sign)];
    if (old?.value === now?.value && old?.isExclusive === now?.isExclusive) return;
    const keyword = old?.keyword ?? now?.keyword;
    const newKeyword = now && now.keyword !== keyword ? `${now.keyword} ` : "";
    const text = `${keyword} ${old?.written ?? "none"} → ${newKeyword}${now?.written ?? "none"}`;
    this.#add(path, !old || (now && isStricter(now, old, sign)) ? "narrowed" : "widened", text);
  }

  #compareFields(before: JsonSchema, after: JsonSchema, path: string): void {
    const [old, now] = [fieldsOf(before), fieldsOf(after)];
    const [required, nowRequired] = [requiredOf(before), requiredOf(after)];
    for (const name of new Set([...Object.keys(old), ...Object.keys(now), ...required, ...nowRequired])) {
      const fieldPath = path === "" ? name : `${path}.${name}`;
      const [was, is] = [Object.hasOwn(old, name), Object.hasOwn(now, name)];
      // A field without a schema of its own has that of the other fields.
      const [rest, nowRest] = [before["additionalProperties"], after["additionalProperties"]];
      if ((was || isSchema(rest)) && (is || isSchema(nowRest)) && (was || is)) {
        this.compare(was ? old[name] : rest, is ? now[name] : nowRest, fieldPath);
      }
      if (required.has(name) !== nowRequired.has(name)) {
        if (nowRequired.has(name)) this.#add(fieldPath, "narrowed", was ? "now required" : "added, required");
        else this.#add(fieldPath, "widened", is ? "now optional" : "removed, was required");
      } else if (!was && is) this.#add(fieldPath, "compatible", "added");
      if (was && !is) this.#removed(after, fieldPath, required.has(name));
    }
    const [open, nowOpen] = [before["additionalProperties"] ?? true, after["additionalProperties"] ?? true];
    const othersPath = path === "" ? "(other fields)" : `${path}.(other fields)`;
    if (isSchema(open) || isSchema(nowOpen)) this.compare(open, nowOpen, othersPath);
    else if (open && !nowOpen) this.#add(othersPath, "narrowed", "now refused");
    else if (!open && nowOpen) this.#add(othersPath, "compatible", "now ignored");
  }

  #removed(after: JsonSchema, fieldPath: string, wasRequired: boolean): void {
    if (after["additionalProperties"] === false) this.#add(fieldPath, "narrowed", "removed, and now refused");
    else if (!wasRequired) this.#add(fieldPath, "compatible", "removed, now ignored");
  }

  #compareItems(before: JsonSchema, after: JsonSchema, path: string): void {
    const [old, now] = [before["items"] ?? true, after["items"] ?? true];
    if (Array.isArray(old) && Array.isArray(now)) {
      const [rest, nowRest] = [before["additionalItems"] ?? true, after["additionalItems"] ?? true];
      for (let index = 0; index < Math.max(old.length, now.length); index++) {
        this.compare(old[index] ?? rest, now[index] ?? nowRest, `${path}[${index}]`);
      }
      this.compare(rest, nowRest, `${path}[${Math.max(old.length, now.length)}…]`);
    } else if (Array.isArray(old) || Array.isArray(now)) this.#add(`${path}[]`, "changed", "a tuple, and an array of any length");
    else this.compare(old, now, `${path}[]`);
  }

  #compareLists(keyword: string, before: unknown, after: unknown, path: string): void {
    if (before === undefined && after === undefined) return;
    if (!Array.isArray(before) || !Array.isArray(after)) {
      this.#add(path, before === undefined ? "narrowed" : "widened", `${keyword} ${before === undefined ? "added" : "removed"}`);
    } else if (keyword !== "allOf") this.#compareAlternatives(before, after, path);
    else {
      const [old, now] = this.#withoutEqual(before, after);
      old.slice(0, now.length).forEach((each, index) => this.compare(each, now[index], path));
      // A value must match every part of allOf.
      if (old.length > now.length) this.#add(path, "widened", "a part of allOf removed");
      if (now.length > old.length) this.#add(path, "narrowed", "a part of allOf added");
    }
  }

  /** The parts of two lists, in any order, without those that are in both. */
  #withoutEqual(before: readonly unknown[], after: readonly unknown[]): [before: unknown[], after: unknown[]] {
    const now = [...after];
    const old = before.filter((part) => {
      const at = now.findIndex((each) => this.#changesOf(part, each).length === 0);
      if (at >= 0) now.splice(at, 1);
      return at < 0;
    });
    return [old, now];
  }

  /** Compares alternatives of the same kind. Others were removed or added, unless another alternative covers them. */
  #compareAlternatives(before: readonly unknown[], after: readonly unknown[], path: string): void {
    const [old, now] = this.#withoutEqual(before, after);
    const shared = sharedBy([...before.map((each) => this.#follow(each, 0)), ...after.map((each) => this.#follow(each, 1))]);
    // Alternatives of one kind have changed; the others were added or removed.
    for (const alternative of [...old]) {
      const at = now.findIndex((each) => kindOf(this.#follow(each, 1)) === kindOf(this.#follow(alternative, 0)));
      if (at < 0) continue;
      this.#compareOne(alternative, now[at], path);
      const accepts = this.#changesOf(alternative, now[at]).some(({ effect }) => effect === "widened" || effect === "changed");
      if (!accepts && !this.#wasAccepted(now[at], before)) {
        this.#add(path, "widened", `${nameOf(this.#follow(now[at], 1), shared)} changed`);
      }
      now.splice(at, 1);
      old.splice(old.indexOf(alternative), 1);
    }
    for (const alternative of old) {
      // Another alternative may accept all of it.
      const isCovered = after.some((each) =>
        this.#changesOf(alternative, each).every(({ effect }) => effect === "widened" || effect === "compatible")
      );
      if (!isCovered) this.#add(path, "narrowed", `${nameOf(this.#follow(alternative, 0), shared)} removed`);
    }
    for (const alternative of now) {
      if (!this.#wasAccepted(alternative, before)) {
        this.#add(path, "widened", `${nameOf(this.#follow(alternative, 1), shared)} added`);
      }
    }
  }

  /**
   * Whether one of the former alternatives accepts whatever this one does. Fields that it refuses are ignored, as new fields are,
   * unless another alternative has them: then they are not new.
   *
   * @param all the alternatives of `before` and, of a field, those that it has in other alternatives.
   */
  #wasAccepted(alternative: unknown, before: readonly unknown[], all: readonly unknown[] = before, depth = 0): boolean {
    const now = this.#follow(alternative, 1);
    const [former, others] = [before, all].map((list) => list.map((each) => this.#follow(each, 0))) as [
      JsonSchema[],
      JsonSchema[],
    ];
    const possible = others.filter((each) => distinguishingOf(each, now).length === 0);
    const known = new Set([
      ...possible.flatMap((each) => Object.keys(fieldsOf(each))),
      ...others.flatMap((each) => distinguishingOf(each, now)),
    ]);
    const fieldOf = (list: readonly JsonSchema[], name: string) =>
      list.flatMap((each) => Object.hasOwn(fieldsOf(each), name) ? alternativesOf(this.#follow(fieldsOf(each)[name], 0)) : []);
    const isKnownField = (each: JsonSchema, name: string): boolean => {
      if (!Object.hasOwn(fieldsOf(each), name)) return each["additionalProperties"] !== false || !known.has(name);
      const [own, inAll] = [fieldOf([each], name), fieldOf(possible, name)];
      return own.length === inAll.length || depth > 4 || // Of a recursive schema.
        alternativesOf(this.#follow(fieldsOf(now)[name], 1)).every((field) => this.#wasAccepted(field, own, inAll, depth + 1));
    };
    return former.some((each) =>
      Object.keys(fieldsOf(now)).every((name) => isKnownField(each, name)) &&
      this.#changesOf(each, now).every(({ effect }) => effect === "narrowed" || effect === "compatible")
    );
  }

  #changesOf(before: unknown, after: unknown): SchemaChange[] {
    const changes: SchemaChange[] = [];
    new SchemaDiff(this.#documents, changes, [...this.#inProgress]).#compareOne(before, after, "");
    return changes;
  }

  #add(path: string, effect: Effect, text: string): void {
    // Alternatives that share a field would report its change twice.
    if (this.#changes.some((each) => each.path === path && each.effect === effect && each.text === text)) return;
    this.#changes.push({ path, effect, text });
  }

  /** Resolves references. @param side of the document: 0 before, 1 after. */
  #follow(part: unknown, side: 0 | 1): JsonSchema {
    if (part === true || part === undefined) return ANY;
    if (!isSchema(part)) return NONE;
    return typeof part["$ref"] === "string" ? this.#follow(resolvePointer(this.#documents[side], part["$ref"]), side) : part;
  }
}
