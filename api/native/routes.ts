import type { AddRoutes } from "../app.ts";
import { addTemplates } from "./templates.ts";
import { addTokens } from "./tokens.ts";

export const addNativeRoutes: AddRoutes = (app, services) => {
  addTokens(app, services);
  addTemplates(app, services);
};
