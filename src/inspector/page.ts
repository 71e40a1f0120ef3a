/** The page loads and connects to nothing but its own origin, and no inline script runs. */
export const POLICY: string =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; " +
  "form-action 'none'; frame-ancestors 'none'";

/** The page. The script fills it. @param url of the request. @param name of the controller. */
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

/** Relative, because a proxy may have cut the start of the path: the browser does not show `/inspector` as a folder. */
function baseOf(url: string): string {
  const last = new URL(url).pathname.split("/").at(-1);
  return last ? `./${last}/` : "./";
}

const escape = (text: string): string => text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
