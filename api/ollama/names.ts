/** Ollama's clients name a model and a tag: ours is always the latest. */
import type { Model } from "../../runtime/types.ts";
import { modelNames, servedModel } from "../served_model.ts";
import type { Services } from "../services.ts";

const LATEST = ":latest";

export function ollamaName(services: Services): string {
  return tagged(modelNames(services)[0]);
}

export function ollamaNames(services: Services): string[] {
  return modelNames(services).map(tagged);
}

function tagged(name: string): string {
  return name.includes(":") ? name : name + LATEST;
}

/** @throws {ApiError} 404 for another model, 503 while it loads. */
export function ollamaModel(services: Services, name: string | null | undefined): Model {
  return servedModel(services, untagged(services, name));
}

function untagged(services: Services, name: string | null | undefined) {
  const isOurs = ollamaNames(services).includes(name ?? "");
  return isOurs && name!.endsWith(LATEST) && !modelNames(services).includes(name!)
    ? name!.slice(0, -LATEST.length)
    : name;
}
