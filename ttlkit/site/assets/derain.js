// <derain-photo>: choose, drop or paste a photograph and get it restored here; nothing leaves the browser.
// Large parts (engine, network, examples) are scripts of their own, since a page opened as a file may fetch nothing.
"use strict";
{
  const HERE = document.currentScript?.src.replace(/[^/]*$/, ""); // where the parts lie; unused where all are in the page
  const MOST_PIXELS = 50e6;
  const MOST_BYTES = 200e6;
  const TYPES = { "image/png": "png", "image/jpeg": "jpg" };
  const parts = (globalThis.ttlkitParts ??= {});

  class Sorry extends Error {} // its message is for the reader

  const LOOK = `
    :host { display: block; font: inherit; --line: color-mix(in srgb, currentcolor 35%, transparent) }
    [hidden] { display: none !important }
    .drop { border: 2px dashed var(--line); border-radius: 8px; padding: 1.2em; text-align: center }
    .drop.over { border-color: currentcolor }
    button, .choose { font: inherit; cursor: pointer; border: 1px solid currentcolor; border-radius: 6px; padding: .45em .9em;
      background: transparent; color: inherit; display: inline-block; margin: .2em }
    .choose { position: relative } .choose input { position: absolute; inset: 0; opacity: 0; width: 100%; cursor: pointer }
    :focus-visible, .choose:focus-within, .pair:focus-within { outline: 3px solid #0072b2; outline-offset: 2px }
    .examples { display: flex; flex-wrap: wrap; gap: .6em; justify-content: center; margin-top: .8em }
    .examples button { padding: 3px; margin: 0; line-height: 0 } .examples img { width: 132px; height: 88px; object-fit: cover }
    progress { width: min(24em, 60%); vertical-align: middle }
    .pair { position: relative; line-height: 0; --at: 50%; margin: .6em auto 0; width: fit-content; max-width: 100% }
    .pair canvas { max-width: 100%; max-height: 85vh; display: block }
    .before { position: absolute; inset: 0; width: 100%; height: 100%; clip-path: inset(0 calc(100% - var(--at)) 0 0) }
    .pair::after { content: ""; position: absolute; inset: 0 auto 0 var(--at); width: 2px; margin-left: -1px; background: #fff;
      box-shadow: 0 0 4px #000; pointer-events: none }
    .pair input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize;
      touch-action: pan-y; z-index: 1 }
    .names { display: flex; justify-content: space-between; margin: .3em 0 .6em } label input { vertical-align: middle }
  `;
  const BODY = `
    <div class="drop">
      <label class="choose">Choose a photograph<input type="file" accept="image/*"></label>
      <div>or drop it here, or paste it</div>
      <div class="examples" role="group" aria-label="Examples in rendered rain"></div>
    </div>
    <p role="status"></p>
    <div class="busy" hidden><progress max="1" aria-label="Restoring"></progress> <button class="cancel">Cancel</button></div>
    <div class="result" hidden>
      <div class="pair">
        <canvas class="after" role="img" aria-label="The photograph restored"></canvas>
        <canvas class="before" role="img" aria-label="The photograph as it was"></canvas>
        <input type="range" class="divider" min="0" max="100" value="50"
          aria-label="Divider: as it was on the left, restored on the right">
      </div>
      <div class="names"><span>as it was</span><span>restored</span></div>
      <label>Strength <input type="range" class="strength" min="0" max="1.5" step="0.05" value="1"> <output>1</output></label>
      <div><button class="save" value="image/png">Save as PNG</button>
        <button class="save" value="image/jpeg">Save as JPEG</button></div>
    </div>
    <p><small>Nothing is uploaded: the photograph stays in this browser, and all of this works with the network off. The
      saved copy has all pixels, in sRGB, and no EXIF data.</small></p>
  `;

  // A part as bytes: from its own script, unless it is in the page already.
  async function part(name) {
    if (!(name in parts))
      await new Promise((loaded, failed) => {
        const script = Object.assign(document.createElement("script"), { src: `${HERE}derain-${name}.js` });
        script.onload = loaded;
        script.onerror = () => failed(new Sorry(`${script.src}: cannot be loaded; copy the whole folder of the site`));
        document.head.append(script);
      });
    const bytes = decode(parts[name]);
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  }

  const decode = (coded) => // the second way takes longer, and every browser knows it
    Uint8Array.fromBase64?.(coded) ?? Uint8Array.from(atob(coded), (letter) => letter.charCodeAt(0));
  const text = async (name) => new TextDecoder().decode(await part(name));

  // The size of a picture, read before all of it is decoded; Sorry for what is none.
  async function sizeOf(file) {
    const start = new TextDecoder("latin1").decode(await file.slice(4, 12).arrayBuffer());
    const name = file.name || "the picture";
    if (file.size > MOST_BYTES) throw new Sorry(`${name}: more than ${MOST_BYTES / 1e6} MB; make it smaller first`);
    const image = new Image();
    try {
      await new Promise((loaded, failed) => {
        Object.assign(image, { onload: loaded, onerror: failed, src: URL.createObjectURL(file) });
      });
    } catch {
      const heic = /^ftyp(hei|hev|mif1|msf1)/.test(start);
      throw new Sorry(heic ? `${name}: a HEIC photograph, which this browser cannot read; save it as JPEG`
        : `${name}: no picture that this browser can read, or a damaged one; save it as JPEG or PNG`);
    } finally {
      URL.revokeObjectURL(image.src);
    }
    const pixels = image.naturalWidth * image.naturalHeight;
    if (pixels > MOST_PIXELS) throw new Sorry(`${name}: ${Math.round(pixels / 1e6)} megapixels, and at most ${MOST_PIXELS / 1e6} fit; make it smaller, or use ttlkit derain`);
    return pixels;
  }

  class DerainPhoto extends HTMLElement {
    connectedCallback() {
      if (this.shadowRoot) return;
      this.attachShadow({ mode: "open" }).innerHTML = `<style>${LOOK}</style>${BODY}`;
      const all = (name) => [...this.shadowRoot.querySelectorAll(name)];
      const named = { status: "[role=status]", progress: "progress", output: "output", chooser: "[type=file]" };
      for (const name of ["drop", "busy", "result", "pair", "divider", "strength", "before", "after", "examples"])
        named[name] = `.${name}`;
      this.at = Object.fromEntries(Object.entries(named).map(([name, where]) => [name, all(where)[0]]));
      this.at.chooser.onchange = () => this.take(this.at.chooser.files[0]);
      this.at.drop.ondragover = (event) => (event.preventDefault(), this.at.drop.classList.add("over"));
      this.at.drop.ondragleave = () => this.at.drop.classList.remove("over");
      this.at.drop.ondrop = (event) => {
        event.preventDefault();
        this.at.drop.classList.remove("over");
        this.take(event.dataTransfer.files[0]);
      };
      document.addEventListener("paste", (event) => this.take(event.clipboardData.files[0]));
      this.at.divider.oninput = () => this.at.pair.style.setProperty("--at", `${this.at.divider.value}%`);
      this.at.strength.oninput = () => this.show();
      all(".save").forEach((button) => (button.onclick = () => this.save(button.value)));
      all(".cancel")[0].onclick = () => this.cancel();
      this.addExamples();
    }

    async addExamples() {
      for (const { name, alt, source } of JSON.parse(await text("examples"))) {
        const button = document.createElement("button");
        button.append(Object.assign(new Image(), { src: source, alt: `Example: ${alt}` }));
        button.onclick = () => this.take(new File([decode(source.split(",")[1])], name, { type: "image/jpeg" }));
        this.at.examples.append(button);
      }
    }

    // Restore a file and show it; one at a time: a new one ends the work on the last.
    async take(file) {
      if (!file) return;
      if (this.busyWith) this.cancel();
      const job = (this.busyWith = {});
      const began = performance.now();
      this.say("Reading …", true);
      this.at.result.hidden = true;
      try {
        await sizeOf(file);
        this.ready ??= this.start();
        await this.ready;
        if (job !== this.busyWith) return;
        this.say("Restoring …", true);
        const [width, height] = await this.ask("restore", file);
        this.name = (file.name || "picture").replace(/\.[^.]*$/, "");
        await this.show();
        const seconds = ((performance.now() - began) / 1000).toFixed(1);
        this.say(`${file.name || "Picture"}: ${width} × ${height} pixels, restored in ${seconds} s by ${this.engine}.`);
        this.at.result.hidden = false;
        this.busyWith = null;
        this.at.divider.focus();
      } catch (error) {
        if (job !== this.busyWith) return; // cancelled
        this.cancel(this.words(error, file));
      } finally {
        this.at.chooser.value = "";
      }
    }

    words(error, file) {
      if (error instanceof Sorry) return error.message;
      const full = /memory|allocat|out of bounds|aborted/i.test(error.message);
      if (full) return `${file.name}: too little memory here; close other pages, or make it smaller`;
      if (/decode/i.test(error.message)) return `${file.name}: damaged; save it again as JPEG or PNG`;
      return `${file.name}: could not be restored (${error.message}); load this page again`;
    }

    cancel(words = "Cancelled.") {
      this.busyWith = this.ready = null;
      this.drawing = false;
      this.worker?.terminate(); // ends a tile at once, and frees its memory
      this.say(words);
    }

    say(words, busy = false) {
      this.at.status.textContent = words;
      this.at.busy.hidden = !busy;
      if (busy) this.at.progress.removeAttribute("value");
    }

    // A worker with the student: on the graphics processor where there is one that computes rightly, else by WebAssembly.
    async start() {
      const adapter = this.hasAttribute("wasm-only") ? null : await navigator.gpu?.requestAdapter().catch(() => null);
      if (adapter) {
        try {
          await this.open("webgpu");
          this.engine = "WebGPU";
          return;
        } catch (error) {
          console.info(`derain-photo: without WebGPU (${error.message})`);
          this.worker.terminate();
        }
      }
      const threads = globalThis.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, 8) : 1;
      await this.open("wasm", threads);
      this.engine = `WebAssembly (${threads} ${threads > 1 ? "threads" : "thread"})`;
    }

    async open(provider, threads = 1) {
      const [code, binary, network, facts] = [await text(`${provider}-code`), await part(provider), await part("student"),
        JSON.parse(await text("facts"))];
      const Worker = globalThis.NativeWorker ?? globalThis.Worker; // the search of the site may have replaced it
      this.worker = new Worker(URL.createObjectURL(new Blob([await text("worker")], { type: "text/javascript" })));
      this.asked = new Map();
      this.worker.onmessage = ({ data: [number, kind, value] }) => {
        if (kind === "progress") return (this.at.progress.value = value);
        const [done, failed] = this.asked.get(number);
        this.asked.delete(number);
        kind === "done" ? done(value) : failed(Error(value));
      };
      this.worker.onerror = (event) => this.asked.forEach(([, failed]) => failed(Error(event.message || "no worker")));
      await this.ask("start", { code, binary, network, provider, threads, ...facts });
    }

    ask(call, ...given) {
      return new Promise((...ways) => {
        this.asked.set((this.number = (this.number ?? 0) + 1), ways);
        this.worker.postMessage([this.number, call, ...given]);
      });
    }

    // Draw before and after; of a slider that moves only the last place counts.
    async show() {
      this.at.output.value = this.at.strength.value;
      if (this.drawing) return (this.again = true);
      this.drawing = true;
      try {
        do {
          this.again = false;
          const pictures = await this.ask("show", +this.at.strength.value);
          [this.at.before, this.at.after].forEach((canvas, i) => {
            Object.assign(canvas, { width: pictures[i].width, height: pictures[i].height });
            canvas.getContext("bitmaprenderer").transferFromImageBitmap(pictures[i]);
          });
        } while (this.again);
      } finally {
        this.drawing = false;
      }
    }

    async save(type) {
      const file = await this.ask("save", +this.at.strength.value, type);
      const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(file) });
      link.download = `${this.name}-derained.${TYPES[type]}`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    }
  }
  customElements.define("derain-photo", DerainPhoto);
}
