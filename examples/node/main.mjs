// node main.mjs MODEL TEXT...: the cosines of the first text to the others.
import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-node";
import { cosine, load } from "./embedge.mjs";

const [path, ...texts] = process.argv.slice(2);
const encoder = await load(await readFile(path), ort);
const { probes, exact, least } = await encoder.verify();
console.log(`${probes} probes hold, ${exact} bit for bit, least cosine ${least.toFixed(6)}`);
const [first, ...others] = await encoder.encode(texts);
others.forEach((vector, i) => console.log(cosine(first, vector).toFixed(4), texts[i + 1]));
