/** A signature algorithm in WebCrypto. */
export interface SignatureParameters {
  readonly name: string;
  readonly hash?: string;
  readonly namedCurve?: string;
  readonly saltLength?: number;
}

/** A key that verifies signatures by one algorithm. It is imported when first used, and once. */
export class SignatureKey {
  readonly #material: Uint8Array | object;
  readonly #parameters: SignatureParameters;
  /** The key and not its promise, which on Workers belongs to the request that began it. */
  #imported: CryptoKey | undefined;

  /** @param material the bytes of a secret, or a JSON Web Key whose members are strings. */
  constructor(material: Uint8Array | object, parameters: SignatureParameters) {
    this.#material = material;
    this.#parameters = parameters;
  }

  /** Whether the key made the signature; `null` when it cannot be imported, such as a point that is not on its curve. */
  async verify(signature: Uint8Array, signed: Uint8Array): Promise<boolean | null> {
    try {
      this.#imported ??= await this.#import();
    } catch {
      return null;
    }
    try {
      // Neither is over shared memory: they were read from a token.
      return await crypto.subtle.verify(this.#parameters, this.#imported, signature as BufferSource, signed as BufferSource);
    } catch {
      return false; // Some runtimes throw for a signature of another length than the key's.
    }
  }

  #import(): Promise<CryptoKey> {
    const material = this.#material;
    return material instanceof Uint8Array
      ? crypto.subtle.importKey("raw", material as BufferSource, this.#parameters, false, ["verify"]) // As above.
      : crypto.subtle.importKey("jwk", material, this.#parameters, false, ["verify"]);
  }
}
