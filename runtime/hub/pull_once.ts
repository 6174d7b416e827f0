/** One pull as a process of its own, for tests: endpoint, cache folder and model are its arguments. */
import process from "node:process";
import { pullModel } from "./pull.ts";

const [endpoint, cacheFolder, model] = process.argv.slice(2);
const settings = { endpoint, cacheFolder, token: null, isOffline: false, stallMs: 20_000 };
const report = await pullModel(model, { settings, pieceBytes: 50_000, connections: 2 });
console.log(JSON.stringify(report));
