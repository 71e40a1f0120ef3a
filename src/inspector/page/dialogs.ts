import { create } from "./dom.ts";
import { act } from "./live.ts";
import type { InspectorAction } from "../shown.ts";

/** A field of a dialog. */
interface Field {
  readonly name: string;
  readonly label: string;
  readonly hint?: string;
  readonly value?: string;
  readonly isRequired?: boolean;
  readonly isLong?: boolean;
}

/** A dialog that does something. */
interface Question {
  readonly title: string;
  readonly text: string;
  readonly verb: string;
  readonly fields: readonly Field[];
  readonly action: InspectorAction;
  /** The request, of the values of the fields. @throws {Error} for a value that cannot be sent. */
  bodyOf(values: Record<string, string>): object;
  /** Says what has happened. */
  outcome(result: unknown): string;
}

const announcement = create("p", { class: "toast", role: "status" });
let hiding = 0;

/** The place where outcomes are announced. */
export const toast: HTMLElement = announcement;

export function announce(text: string): void {
  announcement.textContent = text;
  clearTimeout(hiding);
  hiding = setTimeout(() => announcement.textContent = "", 6_000) as unknown as number; // In a browser a timer is a number.
}

function open({ title, text, verb, fields, action, bodyOf, outcome }: Question): void {
  const error = create("p", { class: "error", role: "alert" });
  const inputs = fields.map(({ name, value = "", isRequired = false, isLong }) =>
    isLong
      ? create("textarea", { name, id: `field-${name}`, required: isRequired, rows: 5, spellcheck: "false" }, value)
      : create("input", { name, id: `field-${name}`, required: isRequired, value, autocomplete: "off" })
  );
  const confirm = create("button", { class: "primary", type: "submit" }, verb);
  const form = create(
    "form",
    {
      submit: async (event: SubmitEvent) => {
        event.preventDefault();
        error.textContent = "";
        confirm.disabled = true;
        try {
          const values = Object.fromEntries(inputs.map(({ name, value }) => [name, value.trim()]));
          const result = await act(action, bodyOf(values));
          dialog.close();
          announce(outcome(result));
        } catch (reason) {
          error.textContent = reason instanceof Error ? reason.message : String(reason);
        } finally {
          confirm.disabled = false;
        }
      },
    },
    create("h2", { id: "dialog-title" }, title),
    create("p", {}, text),
    ...fields.flatMap(({ name, label, hint }, index) => [
      create("label", { for: `field-${name}` }, label),
      inputs[index],
      hint !== undefined && create("p", { class: "hint" }, hint),
    ]),
    error,
    create(
      "div",
      { class: "buttons" },
      create("button", { type: "button", click: () => dialog.close() }, "Cancel"),
      confirm,
    ),
  );
  const dialog: HTMLDialogElement = create(
    "dialog",
    { "aria-labelledby": "dialog-title", close: () => dialog.remove() },
    form,
  );
  document.body.append(dialog);
  dialog.showModal();
}

const user: Field = { name: "user", label: "User", hint: "Empty: any user" };
const role: Field = { name: "role", label: "Role", hint: "Empty: any role" };

/** Those of the values that were filled in. */
const given = (values: Record<string, string>, ...names: string[]) =>
  Object.fromEntries(names.flatMap((name) => values[name] ? [[name, values[name]]] : []));

/** What the other nodes said to an order. */
function ordered(result: unknown): string {
  const { missing = [] } = result as { missing?: string[] }; // As `disconnect` and `refresh` resolve.
  return missing.length > 0 ? ` ${missing.length} nodes have not confirmed it yet.` : "";
}

const parse = (text: string, what: string): unknown => {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`${what} must be JSON, such as { "text": "hello" }`);
  }
};

export function disconnect(uid?: string, name = ""): void {
  open({
    title: uid ? `Disconnect ${name}` : "Disconnect clients",
    text: uid
      ? "The connection is closed. With a code from 4400 to 4499 the client does not come back by itself."
      : "Every connection that matches is closed, on all nodes. With a code from 4400 to 4499 clients do not come back by themselves.",
    verb: "Disconnect",
    fields: [
      ...uid ? [] : [user, role],
      { name: "code", label: "Close code", value: "4403", isRequired: true },
      { name: "reason", label: "Reason", value: "Disconnected", hint: "The client is sent it" },
    ],
    action: "disconnect",
    bodyOf: ({ code, reason = "", ...values }) => ({
      filter: uid ? { uid } : given(values, "user", "role"),
      code: Number(code),
      reason,
    }),
    outcome: (result) => `Disconnected.${ordered(result)}`,
  });
}

export function refresh(): void {
  open({
    title: "Refresh rights",
    text: "The rights of every client that matches are checked again, on all nodes.",
    verb: "Refresh",
    fields: [user, role],
    action: "refresh",
    bodyOf: (values) => ({ filter: given(values, "user", "role") }),
    outcome: (result) => `The rights were checked.${ordered(result)}`,
  });
}

export function broadcast(): void {
  open({
    title: "Broadcast a message",
    text: "Every client that matches is sent it, on all nodes.",
    verb: "Broadcast",
    fields: [
      { name: "message", label: "Message", value: '{ "type": "notice", "text": "" }', isRequired: true, isLong: true },
      user,
      role,
    ],
    action: "broadcast",
    bodyOf: ({ message = "", ...values }) => ({ message: parse(message, "The message"), filter: given(values, "user", "role") }),
    outcome: (result) => {
      const { sent = 0 } = result as { sent?: number }; // As `broadcast` resolves.
      return `Sent to ${sent} clients of the node that was asked, and to the other nodes.`;
    },
  });
}

export function publish(channel = ""): void {
  open({
    title: "Publish to a channel",
    text: "Every subscriber receives it, and the history keeps it.",
    verb: "Publish",
    fields: [
      { name: "channel", label: "Channel", value: channel, isRequired: true },
      { name: "event", label: "Event", isRequired: true },
      { name: "data", label: "Data", value: "{}", isRequired: true, isLong: true },
    ],
    action: "publish",
    bodyOf: ({ channel, event, data = "" }) => ({ channel, event, data: parse(data, "The data") }),
    outcome: () => "Published.",
  });
}
