/** An element with text, never markup: what others wrote is text and nothing else. */
export function element(tag, { text, className, ...rest } = {}, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(rest)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export function fire() {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "fire");
  svg.setAttribute("aria-hidden", "true");
  svg.append(document.createElementNS("http://www.w3.org/2000/svg", "use"));
  svg.firstChild.setAttribute("href", "#fire");
  return svg;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "long", timeStyle: "medium" });

export function time(at) {
  const date = new Date(at);
  return element("time", { datetime: date.toISOString(), title: full.format(date), text: clock.format(date) });
}

/** What somebody wrote, as an item of a log. `only` says whom it is for, where it is not for everybody. */
export function message({ id, at, from, text }, { isOwn, only }) {
  return element(
    "li",
    { "data-id": id, "data-at": at, className: only ? "directed" : "" },
    time(at),
    element(
      "article",
      {},
      element(
        "p",
        { className: "byline" },
        element("b", { text: isOwn ? "You" : from.name }),
        " ",
        element("span", { className: "role", text: from.role, "data-role": from.role }),
        ...(only ? [" ", element("span", { className: "only", text: only })] : []),
      ),
      element("p", { className: "text", text }),
    ),
  );
}
