/** /apply-template: what a chat looks like to the model. */
import { type OpenAPIHono, z } from "@hono/zod-openapi";
import { renderChat } from "../completion/chat_prompt.ts";
import { toolsOf, turnOf } from "../openai/chat_request.ts";
import { ChatMessage, FunctionTool } from "../openai/chat_schema.ts";
import { addPost } from "../route.ts";
import { servedModel } from "../served_model.ts";
import type { Services } from "../services.ts";
import { NATIVE } from "./dialect.ts";

const TemplateRequest = z.object({
  model: z.string().nullish(),
  messages: z.array(ChatMessage).min(1),
  tools: z.array(FunctionTool).nullish(),
  chat_template_kwargs: z.record(z.string(), z.unknown()).nullish(),
}).openapi("TemplateRequest");

const Prompt = z.object({ prompt: z.string() }).openapi("Prompt");

export function addTemplates(app: OpenAPIHono, services: Services): void {
  addPost(app, NATIVE, {
    path: "/apply-template",
    summary: "Messages to the prompt that the model would see",
    body: TemplateRequest,
    answer: Prompt,
  }, (body, c) => {
    const model = servedModel(services, body.model);
    const prompt = renderChat(model, body.messages.map(turnOf), {
      tools: toolsOf(body),
      templateVariables: body.chat_template_kwargs ?? undefined,
    });
    return c.json({ prompt });
  });
}
