import type { AddRoutes } from "../app.ts";
import { addChat } from "./chat.ts";
import { addModels } from "./models.ts";

export const addOpenAiRoutes: AddRoutes = (app, services) => {
  addChat(app, services);
  addModels(app, services);
};
