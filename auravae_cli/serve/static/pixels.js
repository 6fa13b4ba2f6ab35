// Pixels and latents: numbers as the commands print them, maps of channels as `auravae show` draws them.

const GAIN = 4, SHOWN_SHARE = 0.995;
const NEGATIVE = [33, 102, 172], ZERO = [242, 240, 235], POSITIVE = [178, 24, 43];

export async function pixelsOf(blob) {
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const bitmap = await createImageBitmap(blob, options);
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}

export function flipped(pixels, flip) {
  const { width, height } = pixels, result = new ImageData(width, height);
  const from = new Uint32Array(pixels.data.buffer), to = new Uint32Array(result.data.buffer);
  const h = flip.includes("h"), v = flip.includes("v");
  for (let y = 0; y < height; y++) {
    const row = (v ? height - 1 - y : y) * width;
    for (let x = 0; x < width; x++) to[y * width + x] = from[row + (h ? width - 1 - x : x)];
  }
  return result;
}

// The peak signal-to-noise ratio over all pixels and channels, and the largest difference.
export function compared(a, b) {
  let sum = 0, most = 0;
  for (let i = 0; i < a.data.length; i++) {
    if (i % 4 === 3) continue;
    const d = Math.abs(a.data[i] - b.data[i]);
    sum += d * d;
    if (d > most) most = d;
  }
  const mse = sum / (a.width * a.height * 3);
  return { psnr: mse ? 10 * Math.log10(255 ** 2 / mse) : Infinity, most };
}

export function difference(a, b) {
  const result = new ImageData(a.width, a.height);
  for (let i = 0; i < a.data.length; i++) {
    result.data[i] = i % 4 === 3 ? 255 : 128 + GAIN * (a.data[i] - b.data[i]);
  }
  return result;
}

export function draw(canvas, pixels) {
  canvas.width = pixels.width;
  canvas.height = pixels.height;
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

// A latent file as { values, channels, height, width }: safetensors, of float16, bfloat16 or float32.
export async function readLatent(blob) {
  const buffer = await blob.arrayBuffer();
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const { dtype, shape, data_offsets: [start, end] } = header.latent;
  const bytes = buffer.slice(8 + length + start, 8 + length + end);
  const [channels, height, width] = shape;
  return { values: floats(bytes, dtype), channels, height, width };
}

function floats(bytes, dtype) {
  if (dtype === "F32") return new Float32Array(bytes);
  const words = new Uint16Array(bytes);
  if (dtype === "BF16") return new Float32Array(Uint32Array.from(words, (word) => word << 16).buffer);
  return Float32Array.from(words, half);
}

function half(word) {
  const sign = word & 0x8000 ? -1 : 1, exponent = (word >> 10) & 31, fraction = word & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction);
}

export function rangeOf(latent) {
  const values = latent.values.map(Math.abs).sort();
  return values[Math.trunc(SHOWN_SHARE * (values.length - 1))] || 1;
}

export function channelMap(latent, channel, top) {
  const { width, height } = latent, result = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    const share = Math.min(1, Math.max(-1, latent.values[channel * width * height + i] / top));
    const end = share < 0 ? NEGATIVE : POSITIVE;
    for (let c = 0; c < 3; c++) {
      result.data[4 * i + c] = Math.round(ZERO[c] + Math.abs(share) * (end[c] - ZERO[c]));
    }
    result.data[4 * i + 3] = 255;
  }
  return result;
}
