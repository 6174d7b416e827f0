/** /tokenize and /detokenize, as llama-server has them. */
import { type OpenAPIHono, z } from "@hono/zod-openapi";
import type { Tokenizer } from "../../runtime/types.ts";
import { ApiError } from "../errors.ts";
import { tokenIds } from "../completion/prompt_input.ts";
import { addPost } from "../route.ts";
import { servedModel } from "../served_model.ts";
import type { Services } from "../services.ts";
import { NATIVE } from "./dialect.ts";

const TokenizeRequest = z.object({
  model: z.string().nullish(),
  content: z.string(),
  add_special: z.boolean().nullish().openapi({ description: "Begin with BOS; default false" }),
  parse_special: z.boolean().nullish().openapi({
    description: "Read special tokens; default true",
  }),
  with_pieces: z.boolean().nullish().openapi({ description: "Tell what each token stands for" }),
}).openapi("TokenizeRequest");

const Token = z.union([
  z.int(),
  z.object({
    id: z.int(),
    piece: z.union([z.string(), z.array(z.int())]).openapi({
      description: "Text, or the bytes where these are no whole characters",
    }),
  }),
]);
const Tokens = z.object({ tokens: z.array(Token) }).openapi("Tokens");

const DetokenizeRequest = z.object({
  model: z.string().nullish(),
  tokens: tokenIds(0),
}).openapi("DetokenizeRequest");
const Content = z.object({ content: z.string() }).openapi("Content");

export function addTokens(app: OpenAPIHono, services: Services): void {
  addPost(app, NATIVE, {
    path: "/tokenize",
    summary: "Text to tokens",
    body: TokenizeRequest,
    answer: Tokens,
  }, async (body, c) => {
    const model = servedModel(services, body.model);
    const { tokenizer } = model;
    const ids = await model.encode(body.content, {
      addSpecialTokens: body.add_special ?? false,
      parseSpecial: body.parse_special ?? true,
    });
    return c.json({ tokens: body.with_pieces ? ids.map((id) => pieceOf(id, tokenizer)) : ids });
  });
  addPost(app, NATIVE, {
    path: "/detokenize",
    summary: "Tokens to text",
    body: DetokenizeRequest,
    answer: Content,
  }, (body, c) => {
    const { tokenizer } = servedModel(services, body.model);
    checkIds(body.tokens, tokenizer);
    return c.json({ content: tokenizer.decode(body.tokens) });
  });
}

function pieceOf(id: number, tokenizer: Tokenizer) {
  const bytes = tokenizer.tokenBytes(id);
  try {
    return { id, piece: new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes) };
  } catch {
    return { id, piece: [...bytes] };
  }
}

function checkIds(ids: readonly number[], { vocabSize }: Tokenizer): void {
  const bad = ids.find((id) => id >= vocabSize);
  if (bad === undefined) return;
  throw new ApiError(
    400,
    "invalid_request_error",
    `Cannot read token ${bad} as the vocabulary has ids 0 to ${vocabSize - 1}`,
    { param: "tokens" },
  );
}
