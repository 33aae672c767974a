// The worker's first lines: it says that it listens, receives the compiled module and the name of its JavaScript bindings from the
// page, and hands over to Rust, which replaces the message handler.

self.onmessage = async ({ data }) => {
  try {
    const bindings = await import(data.glue);
    await bindings.default({ module_or_path: data.module });
    bindings.serve();
  } catch (error) {
    self.postMessage({ json: JSON.stringify({ kind: "fatal", message: String(error?.message ?? error) }) });
  }
};
self.postMessage({ json: JSON.stringify({ kind: "up" }) });
