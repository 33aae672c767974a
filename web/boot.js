// Starts the page: checks the browser, loads the wasm module once, and hands it to Rust (which passes it on to the worker).
// The names of the generated files come from this script's own element, where trunk writes them.

const root = document.documentElement;

/** Says in words, on the page, why nothing will work. */
function fail(text) {
  root.dataset.state = "error";
  document.getElementById("problem-text").textContent = text;
  document.getElementById("problem").hidden = false;
  document.getElementById("dismiss").hidden = true;
  document.getElementById("loading").hidden = true;
  const retry = document.getElementById("retry");
  retry.hidden = false;
  retry.addEventListener("click", () => location.reload());
}

/** A module of one function that uses a SIMD instruction: (func (result v128) i32.const 0 i8x16.splat). */
const SIMD = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 8, 1, 6, 0, 65, 0, 253, 15, 11,
]);

async function compile(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: the server answered ${response.status}`);
  if (WebAssembly.compileStreaming && (response.headers.get("Content-Type") ?? "").startsWith("application/wasm")) {
    return WebAssembly.compileStreaming(response);
  }
  return WebAssembly.compile(await response.arrayBuffer());
}

async function boot() {
  if (typeof WebAssembly !== "object" || !WebAssembly.validate(SIMD)) {
    fail("This browser has no WebAssembly SIMD, which the page computes with. Any browser since 2023 has it.");
    return;
  }
  const { glue, wasm } = document.getElementById("boot").dataset;
  const glueUrl = new URL(glue, import.meta.url).href;
  try {
    const [bindings, module] = await Promise.all([import(glueUrl), compile(new URL(wasm, import.meta.url).href)]);
    await bindings.default({ module_or_path: module });
    bindings.start(glueUrl, new URL("worker.js", import.meta.url).href);
  } catch (error) {
    console.error(error);
    fail(`The page could not start: ${error?.message ?? error}`);
  }
}

boot();
