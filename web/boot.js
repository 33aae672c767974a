// Starts the page: checks the browser, loads the wasm module once, and hands it to Rust (which passes it on to the worker).
// The names of the other files come from this script's own element, where the build writes them.

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
  const address = (name) => new URL(name, import.meta.url).href;
  const { glue, wasm, worker } = document.getElementById("boot").dataset;
  try {
    const [bindings, module] = await Promise.all([import(address(glue)), compile(address(wasm))]);
    await bindings.default({ module_or_path: module });
    bindings.start(address(glue), address(worker));
  } catch (error) {
    console.error(error);
    fail(`The page could not start: ${error?.message ?? error}`);
    return;
  }
  // Keeps the page's files for the next visit. Private windows and pages that do not come over https have none: nothing is lost.
  navigator.serviceWorker?.register(address("sw.js")).catch((error) => console.info(`No service worker: ${error.message}`));
}

boot();
