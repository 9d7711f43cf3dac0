// A reader of embedge model files for Node and browsers; docs/file-format.md, step by step.
import { Tokenizer } from "@huggingface/tokenizers";
const MAX_FORMAT = 1, MIN_COSINE = 0.999, BATCH_TOKENS = 4096;
// Ideographs beyond the Basic Multilingual Plane that the reference tokenizer puts spaces around.
const CJK = /[\u{20000}-\u{2a6df}\u{2a700}-\u{2b81f}\u{2b920}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/gu;

function* fields(bytes) { // [number, value] of a protobuf message
  let at = 0;
  const varint = () => {
    for (let value = 0, scale = 1; at < bytes.length; scale *= 128) {
      value += (bytes[at] & 127) * scale;
      if (bytes[at++] < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint(), value = varint(), size = tag & 2 ? value : 0;
    if (value === undefined || tag & 5 || size > bytes.length - at)
      throw new Error("the file is truncated or not an embedge model; fetch it again");
    yield [tag >>> 3, tag & 2 ? bytes.subarray(at, (at += size)) : value];
  }
}

const fromBase64 = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const inflate = (bytes) => new Response(
  new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();

function makeTokenizer(json) { // with two faults of the library fixed
  const tokenizer = new Tokenizer(json, {}), normalize = tokenizer.normalizer;
  const lowercases = /"lowercase":true|"type":"Lowercase"/.test(JSON.stringify(json.normalizer));
  const spacesCjk = JSON.stringify(json.normalizer).includes('"handle_chinese_chars":true');
  if (normalize) tokenizer.normalizer = (text) => {
    if (lowercases) text = text.replaceAll("Σ", "σ"); // toLowerCase() gives ς at a word's end
    return normalize(spacesCjk ? text.replace(CJK, " $& ") : text); // it sees UTF-16 units
  };
  return tokenizer;
}

export function cosine(a, b) {
  const dot = (x, y) => x.reduce((sum, value, i) => sum + value * y[i], 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

/** An Encoder of a model file's bytes; `ort` is onnxruntime-node or onnxruntime-web. */
export async function load(bytes, ort, sessionOptions = {}) {
  const entries = [...fields(bytes)].filter(([number]) => number === 14);
  const pairs = entries.map(([, entry]) => [...fields(entry)].map(([, x]) => new TextDecoder().decode(x)));
  const metadata = Object.fromEntries(pairs);
  if (!(Number(metadata["embedge.format"]) <= MAX_FORMAT))
    throw new Error(`expected format ${MAX_FORMAT}, got ${metadata["embedge.format"]}; update the reader`);
  const tokenizer = makeTokenizer(JSON.parse(await inflate(fromBase64(metadata["embedge.tokenizer"]))));
  const [settings, probes] = ["model", "probes"].map((key) => JSON.parse(metadata[`embedge.${key}`]));
  const session = await ort.InferenceSession.create(bytes, sessionOptions);
  return Object.assign(new Encoder(), { settings, probes, tokenizer, session, Tensor: ort.Tensor });
}

class Encoder {
  /** Token ids of a text: prompt in front, truncated, special tokens around it. */
  ids(text, prompt = null) {
    const { prompts, default_prompt, prefix_ids, suffix_ids, max_tokens } = this.settings;
    const name = prompt ?? default_prompt, room = max_tokens - prefix_ids.length - suffix_ids.length;
    if (name !== null && !Object.hasOwn(prompts, name)) throw new Error(`no prompt is named ${name}`);
    const front = name === null ? "" : prompts[name];
    const { ids } = this.tokenizer.encode(front + text, { add_special_tokens: false });
    return [...prefix_ids, ...ids.slice(0, room), ...suffix_ids];
  }
  /** A Float32Array for each text; texts of equal length run together, without padding. */
  async encode(texts, { prompt = null, dim = this.settings.default_dim ?? this.settings.dim } = {}) {
    const items = texts.map((text, index) => ({ ids: this.ids(text, prompt), index }))
      .sort((a, b) => a.ids.length - b.ids.length);
    const vectors = new Array(texts.length), full = this.settings.dim;
    for (let start = 0, end; start < items.length; start = end) {
      const { length } = items[start].ids, most = Math.max(1, Math.floor(BATCH_TOKENS / length));
      for (end = start; end - start < most && items[end]?.ids.length === length;) end++;
      const ids = BigInt64Array.from(items.slice(start, end).flatMap((item) => item.ids), BigInt);
      const tensor = (values) => new this.Tensor("int64", values, [end - start, length]);
      const feeds = { input_ids: tensor(ids), attention_mask: tensor(ids.map(() => 1n)) };
      const { data } = (await this.session.run(feeds, ["sentence_embedding"])).sentence_embedding;
      for (let row = 0; row < end - start; row++) {
        const vector = data.slice(row * full, row * full + dim);
        const norm = (this.settings.normalized && dim < full && Math.hypot(...vector)) || 1;
        vectors[items[start + row].index] = vector.map((x) => x / norm);
      }
    }
    return vectors;
  }
  /** Run the file's probes; throws where token ids differ or a cosine is below 0.999. */
  async verify() {
    const found = { probes: this.probes.length, exact: 0, least: 1 };
    for (const { text, prompt, ids, output } of this.probes) {
      if (`${this.ids(text, prompt)}` !== `${ids}`) throw new Error(`other token ids: ${text}`);
      const [vector] = await this.encode([text], { prompt, dim: this.settings.dim });
      const expected = new Float32Array(fromBase64(output).buffer), similarity = cosine(vector, expected);
      if (!(similarity >= MIN_COSINE)) throw new Error(`cosine ${similarity}: ${text}`);
      found.least = Math.min(found.least, similarity);
      found.exact += vector.every((x, i) => Object.is(x, expected[i]));
    }
    return found;
  }
}
