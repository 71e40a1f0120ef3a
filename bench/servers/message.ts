/** What every server of the bench answers with, so that all send the same bytes. */

const PAD = "abcdefghijklmnopqrstuvwxyz0123456789".repeat(3).slice(0, 84);

/** A publication: 128 bytes of JSON, but for the number's own digits. */
export const said = (seq: number): { type: "said"; seq: number; text: string } => ({ type: "said", seq, text: PAD });

/** Who a token stands for: `user:role`. */
export function roleOf(url: string): string {
  return url.split("access_token=")[1]?.split(":")[1] ?? "";
}

/** Messages of a mebibyte that a client which never reads is sent. */
export const LARGE = 200;
export const large: { type: "large"; text: string } = { type: "large", text: "x".repeat(1024 * 1024) };
