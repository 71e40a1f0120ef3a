import type { Said } from "../contract.ts";

const clock = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
});

/** The element of index.html with this id. */
export function find<Found extends HTMLElement = HTMLElement>(
  id: string,
): Found {
  return document.getElementById(id) as Found; // Each is there, with that type.
}

/** An element with text, never markup: others have written it. */
function create(
  tag: string,
  className: string,
  ...content: (string | Node)[]
): HTMLElement {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...content);
  return element;
}

/** The first letter of a name, in a colour that is always the same. */
function createAvatar(user: string): HTMLElement {
  const avatar = create("span", "avatar", user.charAt(0).toUpperCase());
  const hue = [...user].reduce(
    (sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 360,
    7,
  );
  avatar.style.setProperty("--hue", String(hue));
  avatar.ariaHidden = "true";
  return avatar;
}

export function createPerson(user: string): HTMLElement {
  return create(
    "li",
    "person",
    createAvatar(user),
    create("span", "name", user),
  );
}

export function createMessage(
  { id, from, text, at }: Said,
  me: string,
): HTMLElement {
  const time = create("time", "time", clock.format(at)) as HTMLTimeElement;
  time.dateTime = new Date(at).toISOString();
  const head = create("p", "head", create("b", "name", from), " ", time);
  const message = create(
    "li",
    from === me ? "message own" : "message",
    createAvatar(from),
    head,
    create("p", "text", text),
  );
  message.id = id;
  return message;
}
