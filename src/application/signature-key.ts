/** WebCrypto parameters of a signature algorithm. */
export interface SignatureParameters {
  readonly name: string;
  readonly hash?: string;
  readonly namedCurve?: string;
  readonly saltLength?: number;
}

/** A key for one signature algorithm, imported on first use. */
export class SignatureKey {
  readonly #material: Uint8Array | object;
  readonly #parameters: SignatureParameters;
  /** The key, not its promise: on Workers a promise belongs to the request that created it. */
  #imported: CryptoKey | undefined;

  /** @param material bytes of a secret, or a JSON Web Key whose members are strings. */
  constructor(material: Uint8Array | object, parameters: SignatureParameters) {
    this.#material = material;
    this.#parameters = parameters;
  }

  /** Whether the signature is valid; `null` if the key cannot be imported, such as a point off its curve. */
  async verify(signature: Uint8Array, signed: Uint8Array): Promise<boolean | null> {
    try {
      this.#imported ??= await this.#import();
    } catch {
      return null;
    }
    try {
      // Both were decoded from a token, so neither uses shared memory.
      return await crypto.subtle.verify(this.#parameters, this.#imported, signature as BufferSource, signed as BufferSource);
    } catch {
      return false; // Some runtimes throw if the signature's length does not fit the key.
    }
  }

  #import(): Promise<CryptoKey> {
    const material = this.#material;
    return material instanceof Uint8Array
      ? crypto.subtle.importKey("raw", material as BufferSource, this.#parameters, false, ["verify"]) // Not shared either.
      : crypto.subtle.importKey("jwk", material, this.#parameters, false, ["verify"]);
  }
}
