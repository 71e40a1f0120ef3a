/** The fields of a `UIMessageChunk` of the AI SDK that are used here. */
export interface Chunk {
  readonly type: string;
  readonly [name: string]: unknown;
}

/** The piece of a text that each type of chunk adds, and the text that it belongs to. */
const PIECES: { readonly [type: string]: readonly [piece: string, of: string] } = {
  "text-delta": ["delta", "id"],
  "reasoning-delta": ["delta", "id"],
  "tool-input-delta": ["inputTextDelta", "toolCallId"],
};

/** Joins consecutive pieces of one text, one reasoning or the input of one tool: a late reader gets the text at once. */
export function mergeChunks(chunks: Chunk[]): Chunk[] {
  const merged: Chunk[] = [];
  for (const chunk of chunks) {
    const joined = join(merged.at(-1), chunk);
    if (joined) merged[merged.length - 1] = joined;
    else merged.push(chunk);
  }
  return merged;
}

/** Absent: the two do not belong together. */
function join(last: Chunk | undefined, chunk: Chunk): Chunk | undefined {
  const [piece, of] = PIECES[chunk.type] ?? [];
  if (!piece || !of || last?.type !== chunk.type || last[of] !== chunk[of]) return undefined;
  // The metadata of a provider belongs to one piece.
  if (last["providerMetadata"] || chunk["providerMetadata"]) return undefined;
  return { ...last, [piece]: `${last[piece]}${chunk[piece]}` };
}
