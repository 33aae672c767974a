#!/usr/bin/env node
// A server for a folder of static files, on this machine only.
//
//   node scripts/serve.mjs [DIR] [PORT]        `dist` and 8080 unless given

import { createReadStream, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";

const TYPES = {
  ".css": "text/css; charset=utf-8",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".json": "application/json",
  ".png": "image/png",
  ".safetensors": "application/octet-stream",
  ".wasm": "application/wasm",
};

/** The file that a request's path names, or null. Nothing outside `root` can be named. */
function locate(root, target) {
  try {
    const { pathname } = new URL(target, "http://localhost");
    let path = resolve(join(root, decodeURIComponent(pathname)));
    if (path !== root && !path.startsWith(root + sep)) return null;
    let found = statSync(path);
    if (found.isDirectory()) {
      path = join(path, "index.html");
      found = statSync(path);
    }
    return found.isFile() ? { path, size: found.size } : null;
  } catch {
    return null;
  }
}

/** Serves `dir`; port 0 takes a free one. `headers` go with every answer. Resolves to `{ url, close }`. */
export function serve(dir, port = 0, headers = {}) {
  const root = resolve(dir);
  const server = createServer((request, response) => {
    const file = locate(root, request.url ?? "/");
    const end = (status, text) => response.writeHead(status, { ...headers, "Content-Type": "text/plain" }).end(text);
    if (request.method !== "GET" && request.method !== "HEAD") return end(405, "only GET and HEAD\n");
    if (!file) return end(404, "no such file\n");
    const type = TYPES[extname(file.path)] ?? "application/octet-stream";
    // A page built anew must be seen at once.
    response.writeHead(200, { ...headers, "Content-Type": type, "Content-Length": file.size, "Cache-Control": "no-cache" });
    if (request.method === "HEAD") return response.end();
    createReadStream(file.path).on("error", () => response.destroy()).pipe(response);
  });
  return new Promise((done, failed) => {
    server.once("error", failed);
    server.listen(port, "127.0.0.1", () => {
      const close = () => new Promise((closed) => {
        server.close(closed);
        server.closeAllConnections();
      });
      done({ url: `http://127.0.0.1:${server.address().port}/`, close });
    });
  });
}

if (process.argv[1] && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const [dir = "dist", port = "8080"] = process.argv.slice(2);
  try {
    const { url } = await serve(dir, Number(port));
    console.log(`${dir} is served at ${url} (Ctrl-C stops)`);
  } catch (error) {
    const why = error.code === "EADDRINUSE" ? `port ${port} is in use; stop what listens there, or name another port` : error.message;
    console.error(`serve: ${why}`);
    process.exit(1);
  }
}
