// Restores a photograph beside the page: ONNX Runtime Web runs the student over tiles, as ttlkit/apply/restore.py does.
// A classic worker: a page opened as a file may start no module worker. What it needs comes from the page.
"use strict";
const VIEW = 1600; // pixels, longest side of what is shown; what is saved has all pixels
const TILE = 768; // pixels; larger tiles overlap less and take more memory
let ort, student, halo, width, height, rainy, restored, views; // rainy, restored: RGBA of all pixels; views: smaller

onmessage = async ({ data: [number, call, ...given] }) => {
  try {
    postMessage([number, "done", await calls[call](...given)]);
  } catch (error) {
    postMessage([number, "failed", String(error?.message ?? error)]);
  }
};

const calls = {
  // Start the engine. `code`, `binary`: of ONNX Runtime Web; `provider`: wasm or webgpu.
  async start({ code, binary, network, provider, threads, reach, multiple }) {
    ort = await import(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
    Object.assign(ort.env.wasm, { wasmBinary: binary, numThreads: threads });
    ort.env.logLevel = "error";
    halo = Math.ceil(reach / multiple) * multiple;
    // No arena: it would keep the memory of the largest tile, twice.
    const open = (name) => ort.InferenceSession.create(network, { executionProviders: [name], enableCpuMemArena: false });
    student = await open(provider);
    if (provider === "webgpu") await agree(await open("wasm"));
  },

  // Restore a file; tells `progress` after each tile. Returns the size.
  async restore(file) {
    const picture = await createImageBitmap(file); // turned upright, in sRGB
    const canvas = new OffscreenCanvas(picture.width, picture.height);
    const paint = canvas.getContext("2d", { willReadFrequently: true });
    paint.fillStyle = "white"; // under what is transparent
    paint.fillRect(0, 0, picture.width, picture.height);
    paint.drawImage(picture, 0, 0);
    ({ width, height } = picture);
    picture.close();
    rainy = paint.getImageData(0, 0, width, height).data;
    canvas.width = canvas.height = 0; // frees its memory
    restored = new Uint8ClampedArray(rainy.length);
    for (let top = 0; top < height; top += TILE)
      for (let left = 0; left < width; left += TILE) {
        await fill(top, left);
        const rows = Math.min(top + TILE, height) - top;
        postMessage([0, "progress", (top * width + rows * Math.min(left + TILE, width)) / (width * height)]);
      }
    views = await Promise.all([rainy, restored].map(smaller));
    return [width, height];
  },

  // What is on the screen: before and after as pictures.
  async show(strength) {
    const [before, after] = views;
    const mixed = new ImageData(mix(before.data, after.data, strength), before.width);
    return [await createImageBitmap(before), await createImageBitmap(mixed)];
  },

  // All pixels as a file.
  async save(strength, type) {
    const canvas = new OffscreenCanvas(width, height);
    canvas.getContext("2d").putImageData(new ImageData(mix(rainy, restored, strength), width), 0, 0);
    return canvas.convertToBlob({ type, quality: 0.95 });
  },
};

// Restore one tile; around it the network sees `halo` pixels more, so that no seam shows.
async function fill(top, left) {
  const [y, x] = [Math.max(0, top - halo), Math.max(0, left - halo)];
  const [bottom, right] = [Math.min(height, top + TILE + halo), Math.min(width, left + TILE + halo)];
  const [rows, columns] = [bottom - y, right - x];
  const planes = new Float32Array(3 * rows * columns);
  for (let row = 0, to = 0; row < rows; row++)
    for (let from = 4 * ((y + row) * width + x), end = from + 4 * columns; from < end; from += 4, to++)
      for (let c = 0; c < 3; c++) planes[to + c * rows * columns] = rainy[from + c] / 255;
  const made = await run(student, planes, rows, columns);
  for (let row = top; row < Math.min(top + TILE, height); row++)
    for (let column = left; column < Math.min(left + TILE, width); column++) {
      const [to, from] = [4 * (row * width + column), (row - y) * columns + column - x];
      for (let c = 0; c < 3; c++) restored[to + c] = 255 * made[from + c * rows * columns]; // rounds
      restored[to + 3] = 255;
    }
}

async function run(session, planes, rows, columns) {
  const { restored } = await session.run({ rainy: new ort.Tensor("float32", planes, [1, 3, rows, columns]) });
  const made = await restored.getData();
  restored.dispose();
  return made;
}

// A graphics processor may compute wrongly: on a small picture it must agree with the processor.
async function agree(reference) {
  const side = 64;
  const planes = Float32Array.from({ length: 3 * side * side }, (_, i) => (Math.sin(i) + 1) / 2);
  const [one, other] = [await run(student, planes, side, side), await run(reference, planes, side, side)];
  await reference.release();
  if (!one.every((value, i) => Math.abs(value - other[i]) < 0.5 / 255)) throw Error("the graphics processor errs");
}

// rainy + strength * (restored - rainy), rounded and clipped by the array.
function mix(before, after, strength) {
  if (strength === 1) return new Uint8ClampedArray(after);
  return Uint8ClampedArray.from(before, (value, i) => value + strength * (after[i] - value));
}

async function smaller(pixels) {
  const scale = Math.min(1, VIEW / Math.max(width, height));
  const [w, h] = [width, height].map((side) => Math.max(1, Math.round(scale * side)));
  const picture = await createImageBitmap(new ImageData(pixels, width), { resizeWidth: w, resizeHeight: h });
  const paint = new OffscreenCanvas(w, h).getContext("2d");
  paint.drawImage(picture, 0, 0);
  picture.close();
  return paint.getImageData(0, 0, w, h);
}
