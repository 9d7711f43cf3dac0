// The reader compared with transformers.js, in Node and in a browser; run by __main__.py.

/** Vectors of both, as arrays; texts a second of each; what WebGPU gave, where it was asked for. */
export async function measure({ load, ort, transformers, bytes, texts, folder, webgpu }) {
  const own = await load(bytes, ort, { intraOpNumThreads: 1 });
  const found = { probes: await own.verify() };
  await own.encode(texts.slice(0, 8));
  let start = performance.now();
  found.reader = (await own.encode(texts)).map((vector) => [...vector]);
  found.readerRate = (texts.length * 1000) / (performance.now() - start);
  start = performance.now();
  for (const text of texts) await own.encode([text]);
  found.readerSingleRate = (texts.length * 1000) / (performance.now() - start);

  const { pipeline, env } = transformers;
  Object.assign(env, { allowRemoteModels: false, allowLocalModels: true, useBrowserCache: false });
  env.localModelPath = folder.parent;
  const options = { session_options: { intraOpNumThreads: 1 }, dtype: "q8" };
  const extract = await pipeline("feature-extraction", folder.name, options);
  const one = async (text) => (await extract(text, { pooling: "mean", normalize: true })).tolist()[0];
  await one(texts[0]);
  start = performance.now();
  found.transformers = [];
  for (const text of texts) found.transformers.push(await one(text));
  found.transformersRate = (texts.length * 1000) / (performance.now() - start);
  if (webgpu) found.webgpu = await tryWebGpu({ load, ort: webgpu, bytes });
  return found;
}

async function tryWebGpu({ load, ort, bytes }) {
  const adapter = await navigator.gpu?.requestAdapter();
  if (!adapter) return "no adapter";
  const { vendor, architecture, description } = adapter.info;
  const device = [vendor, architecture, description].filter(Boolean).join(" ") || "unnamed adapter";
  try {
    const encoder = await load(bytes, ort, { executionProviders: ["webgpu"] });
    const { probes, least } = await encoder.verify();
    return `${device}: ${probes} probes hold, least cosine ${least.toFixed(6)}`;
  } catch (error) {
    return `${device}: ${error.message}`;
  }
}
