/** The style of the page of `asyncapiPage`. */
export const style = `:root {
  color-scheme: light dark;
  --text: #1d2126; --soft: #565e68; --line: #d9dde2; --back: #fff; --box: #f4f6f8; --accent: #a3350b; --link: #0b5cad;
}
@media (prefers-color-scheme: dark) {
  :root { --text: #e8eaed; --soft: #a9b1bb; --line: #363c44; --back: #14171a; --box: #1d2126; --accent: #ff9d6e; --link: #8ec5ff; }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 64rem; padding: 1.5rem 1rem 4rem; background: var(--back); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere;
}
a { color: var(--link); }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; border-radius: 2px; }
h1 { margin: 0; font-size: 1.75rem; line-height: 1.2; }
h2 { margin: 2.5rem 0 .75rem; font-size: 1.25rem; }
h3 { margin: 0; font-size: 1rem; }
small, .summary, .optional, .type, .or { color: var(--soft); font-size: .875rem; font-weight: 400; }
p { margin: .5rem 0; max-width: 44rem; }
.text { white-space: pre-line; }
code, pre { font: .875rem/1.5 ui-monospace, monospace; }
nav { margin-top: 1.5rem; border-block: 1px solid var(--line); }
nav ul { display: flex; flex-wrap: wrap; gap: 0 1.25rem; margin: 0; padding: 0; list-style: none; }
nav a { display: block; padding: .5rem 0; }
dl { display: grid; grid-template-columns: minmax(0, max-content) minmax(0, 1fr); gap: .25rem 1.5rem; margin: .75rem 0; }
dd { margin: 0; }
section { scroll-margin-top: 1rem; }
details { border: 1px solid var(--line); border-radius: .5rem; margin: .5rem 0; }
summary { padding: .625rem .875rem; cursor: pointer; border-radius: .5rem; }
summary:hover { background: var(--box); }
details[open] > summary { border-bottom: 1px solid var(--line); border-radius: .5rem .5rem 0 0; }
.arrow { color: var(--accent); font-weight: 700; }
.receive::before { content: "→"; }
.send::before { content: "←"; }
article { padding: .875rem; }
article + article { border-top: 1px solid var(--line); }
.fields { margin: .5rem 0 0; padding: 0; list-style: none; }
.fields .fields { margin: .25rem 0 0; padding-left: 1rem; border-left: 2px solid var(--line); }
.fields li { padding: .1875rem 0; }
.fields .summary { display: block; }
.or { margin: .5rem 0 0; }
pre { margin: .75rem 0 0; padding: .75rem .875rem; background: var(--box); border-radius: .375rem; white-space: pre-wrap; }
@media (max-width: 36rem) {
  dl { grid-template-columns: minmax(0, 1fr); gap: 0; }
  dd { margin-bottom: .5rem; }
  summary .summary { display: block; }
}
`;
