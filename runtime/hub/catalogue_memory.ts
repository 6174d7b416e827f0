import type { CatalogueEntry } from "./catalogue.ts";
export interface CatalogueModel extends CatalogueEntry {
  licence: string;
  downloadBytes: number | null;
  memoryBytes: number | null;
  contextSize: number | null;
  note: string | null;
}
export function remoteModels(): CatalogueModel[] {
  return [];
}
