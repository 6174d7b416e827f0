import type { Model } from "../runtime/types.ts";
import { ApiError } from "./errors.ts";
import type { Services } from "./services.ts";

/** All names that clients may call the model by, its own first. */
export function modelNames({ host, config }: Services): string[] {
  return [...new Set([host.name, ...config.aliases])];
}

/**
 * The model, if it is what a request names. One that names none takes what there is.
 *
 * @throws {ApiError} 404 for another name; 503 while it loads.
 */
export function servedModel(services: Services, name: string | null | undefined): Model {
  checkModelName(services, name);
  return services.host.model;
}

/** @throws {ApiError} 404 for a model that is not served here. */
export function checkModelName(services: Services, name: string | null | undefined): void {
  const names = modelNames(services);
  if (name === undefined || name === null || names.includes(name)) return;
  throw new ApiError(
    404,
    "not_found_error",
    `There is no model ${JSON.stringify(name.slice(0, 80))} here: this server has ${
      names.join(", ")
    }`,
    { param: "model", code: "model_not_found" },
  );
}
