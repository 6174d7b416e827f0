import type { AddRoutes } from "../app.ts";
import { addChat } from "./chat.ts";
import { addCompletions } from "./completions.ts";
import { addEmbeddings } from "./embeddings.ts";
import { addModels } from "./models.ts";
import { addResponses } from "./responses.ts";

export const addOpenAiRoutes: AddRoutes = (app, services) => {
  addChat(app, services);
  addCompletions(app, services);
  addResponses(app, services);
  addEmbeddings(app, services);
  addModels(app, services);
};
