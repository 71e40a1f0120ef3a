/** Content security policy: the page loads from and connects to its own origin only, and runs no inline script. */
export const POLICY: string =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; " +
  "form-action 'none'; frame-ancestors 'none'";

/** Returns the page, which its script fills. @param url of the request. @param name of the controller. */
export function page(url: string, name: string): string {
  const base = escape(baseOf(url));
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Inspector · ${escape(name)}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="${base}style.css">
<script type="module" src="${base}main.js"></script>
</head>
<body data-controller="${escape(name)}">
<noscript>The inspector needs JavaScript.</noscript>
</body>
</html>
`;
}

/** Returns the base of the page's files. Relative, because a proxy may have removed the start of the path. */
function baseOf(url: string): string {
  const last = new URL(url).pathname.split("/").at(-1);
  return last ? `./${last}/` : "./";
}

const escape = (text: string): string => text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
