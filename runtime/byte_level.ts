/**
 * GPT-2's spelling of bytes in vocabularies: printable Latin-1 bytes stand for themselves, the
 * other 68 are characters from U+0100 on.
 *
 * Source: bytes_to_unicode in GPT-2's encoder.py.
 */

const IS_PRINTABLE = (byte: number) =>
  (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;

/** Character of each byte. */
export const BYTE_CHARACTERS: readonly string[] = byteCharacters();

const BYTE_OF_CHARACTER = new Map(BYTE_CHARACTERS.map((character, byte) => [character, byte]));

function byteCharacters(): string[] {
  let next = 0x100;
  return Array.from(
    { length: 256 },
    (_, byte) => String.fromCharCode(IS_PRINTABLE(byte) ? byte : next++),
  );
}

const encoder = new TextEncoder();

/** Text in the vocabulary's spelling: a character for each of its UTF-8 bytes. */
export function byteLevelText(text: string): string {
  let spelled = "";
  for (const byte of encoder.encode(text)) spelled += BYTE_CHARACTERS[byte];
  return spelled;
}

/**
 * Bytes of a token in that spelling. A token with any other character (added tokens have them) is
 * plain text, as in Hugging Face's decoder.
 */
export function byteLevelBytes(token: string): Uint8Array {
  const bytes: number[] = [];
  for (const character of token) {
    const byte = BYTE_OF_CHARACTER.get(character);
    if (byte === undefined) return encoder.encode(token);
    bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}
