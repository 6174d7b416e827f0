export interface CatalogueEntry {
  name: string;
  repo: string;
  file?: string;
}
export function catalogueEntry(_name: string): CatalogueEntry | null {
  return null;
}
