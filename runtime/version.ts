/** That of deno.json, which packages do not carry. */
export const VERSION = "0.1.0";
