/** What is answered without a key. */
const HEALTH = /^\/(v1\/)?health$/;

/** The pages and their files are the same for everybody, and hold no secrets. */
const PAGES = /^\/(|docs|openapi\.json|favicon\.(ico|svg)|web\/.*)$/;

export function isPublicPath(path: string): boolean {
  return HEALTH.test(path) || PAGES.test(path);
}
