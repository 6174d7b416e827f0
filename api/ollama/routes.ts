import type { AddRoutes } from "../app.ts";
import { addCompletions } from "./completions.ts";
import { addEmbed } from "./embed.ts";
import { addModels } from "./models.ts";

export const addOllamaRoutes: AddRoutes = (app, services) => {
  addCompletions(app, services);
  addModels(app, services);
  addEmbed(app, services);
};
