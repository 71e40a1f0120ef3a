import { once } from "node:events";
import { connect } from "node:net";

const CHUNK = `64\r\n${"x".repeat(100)}\r\n`;

/**
 * Sends a request, and chunks of its body until the server has closed the connection. Resolves with the beginning of the answer.
 *
 * @param head the lines of the request without `Transfer-Encoding`, each with its end.
 * @param chunks how many are sent with the head.
 */
export async function sendEndlessBody(port: number, head: string, chunks = 1): Promise<string> {
  const socket = connect(port, "127.0.0.1");
  const closed = new Promise((resolve) => socket.once("close", resolve)); // `once` would reject: it writes to a connection that has ended.
  socket.on("error", () => {});
  socket.write(`${head}Transfer-Encoding: chunked\r\n\r\n${CHUNK.repeat(chunks)}`);
  const [answer] = await once(socket, "data");
  const sending = setInterval(() => socket.write(CHUNK), 20);
  await closed;
  clearInterval(sending);
  return String(answer);
}
