/** The user of the session, or null without one. */
export async function whoAmI(): Promise<string | null> {
  return (await (await fetch("/session")).json()).user;
}

/** Begins a session. Rejects with what the page shows. */
export async function logIn(user: string, password: string): Promise<string> {
  const response = await post("/login", { user, password });
  if (response.status === 429) {
    throw new Error("Too many attempts: wait a minute");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer.user;
}

export async function logOut(): Promise<void> {
  const response = await post("/logout", {});
  if (!response.ok) throw new Error("You are still logged in: try again");
}

function post(path: string, body: object): Promise<Response> {
  return fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
}
