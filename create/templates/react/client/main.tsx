import { useConnectionStatus, usePresence, useSubscription } from "noroshi/react";
import { type FormEvent, useState } from "react";
import { createRoot } from "react-dom/client";
import type { Said } from "../src/contract.ts";
import { type ChatClient, createChatClient, STATUS } from "./chat-client.ts";

function App() {
  const [client, setClient] = useState<ChatClient>();
  return client ? <Chat client={client} /> : <Login onName={(name) => setClient(createChatClient(name))} />;
}

function Login({ onName }: { onName: (name: string) => void }) {
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    onName(new FormData(event.currentTarget).get("name") as string); // A text input.
  };
  return (
    <>
      <header>
        <h1>Chat</h1>
      </header>
      <form onSubmit={submit}>
        <input name="name" aria-label="Your name" placeholder="Your name" maxLength={20} autoComplete="nickname" required />
        <button>Join</button>
      </form>
    </>
  );
}

function Chat({ client }: { client: ChatClient }) {
  const status = useConnectionStatus(client);
  const people = usePresence(client, "chat");
  const { state: said, error } = useSubscription(client, "chat", {
    initial: [] as Said[],
    // `init` comes first, and again after a gap.
    reduce: (said, item) => item.event === "init" ? item.data : [...said, item.data],
  });
  return (
    <>
      <header>
        <h1>Chat</h1>
        <p role="status">{STATUS[status]}</p>
      </header>
      {error && <p className="error" role="alert">{error.message}</p>}
      <ul className="people" aria-label="Here now">{people.map(({ user }) => <li key={user}>{user}</li>)}</ul>
      <ol className="said" role="log" aria-label="Messages">
        {said.map(({ from, text, at }, index) => (
          <li key={index}>
            <b>{from}</b> <time>{new Date(at).toLocaleTimeString()}</time>
            <div>{text}</div>
          </li>
        ))}
      </ol>
      <Composer client={client} />
    </>
  );
}

function Composer({ client }: { client: ChatClient }) {
  const [text, setText] = useState("");
  const [problem, setProblem] = useState("");
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    try {
      await client.request("say", { text }, { idempotent: true });
      setText("");
      setProblem("");
    } catch (error) {
      setProblem(String(error)); // The text stays, so that nothing is lost.
    }
  };
  return (
    <form onSubmit={submit}>
      <input
        value={text}
        onChange={(event) => setText(event.target.value)}
        aria-label="Message"
        placeholder="Message"
        maxLength={500}
        autoComplete="off"
        required
      />
      <button>Send</button>
      {problem && <p className="error" role="alert">{problem}</p>}
    </form>
  );
}

createRoot(document.getElementById("chat")!).render(<App />);
