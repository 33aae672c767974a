// Keeps the page's files, so that the page opens without a network after the first visit. The build puts the list of files before this, each
// with its SHA-256: names carry hashes, so an index.html only ever meets the files that it was built with.
//
// index.html itself and the list of models come from the network where there is one: a new deployment, or a page built anew on
// localhost, is seen at once. Models are not this worker's business: the page keeps those, once, by their own hash.

/* global FILES, VERSION */
const root = new URL("./", self.location.href).href;
// A host may have this page in several folders.
const PREFIX = `limbeck-page-${new URL(root).pathname}-`;
const CACHE = `${PREFIX}${VERSION}`;
const LIST = "limbeck-list-v1";
/** Milliseconds to wait for a network that neither answers nor fails. */
const PATIENCE = 4000;

const index = `${root}index.html`;
const list = `${root}models/index.json`;
const names = new Set(FILES.map(([name]) => root + name));

async function sha256(bytes) {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(hash, (b) => b.toString(16).padStart(2, "0")).join("");
}

/** Fetches a file of this very build, from the browser's own cache if that has it. */
async function fetchExactly(name, hash) {
  for (const cache of ["default", "reload"]) {
    const response = await fetch(root + name, { cache });
    const bytes = await response.arrayBuffer();
    if (!response.ok || (await sha256(bytes)) !== hash) continue;
    // Made anew: navigations refuse an answer that came by a redirect.
    return new Response(bytes, { headers: { "Content-Type": response.headers.get("Content-Type") ?? "" } });
  }
  throw new Error(`${name} is not that of build ${VERSION}`);
}

self.addEventListener("install", (event) => {
  const install = async () => {
    // All or nothing: while a deployment is under way this fails, and the browser tries again at the next visit.
    const responses = await Promise.all(FILES.map(([name, hash]) => fetchExactly(name, hash)));
    const cache = await caches.open(CACHE);
    await Promise.all(FILES.map(([name], k) => cache.put(root + name, responses[k])));
    const models = await fetch(list, { cache: "no-cache" });
    if (models.ok) await (await caches.open(LIST)).put(list, models);
    await self.skipWaiting();
  };
  event.waitUntil(install());
});

self.addEventListener("activate", (event) => {
  const activate = async () => {
    // The last build before this one stays: a page that is still open may ask for its files.
    const old = (await caches.keys()).filter((key) => key.startsWith(PREFIX) && key !== CACHE);
    await Promise.all(old.slice(0, -1).map((key) => caches.delete(key)));
    await self.clients.claim();
  };
  event.waitUntil(activate());
});

/** From the network, and from the cache where that does not answer in time. What comes is passed to `keep`. */
async function networkFirst(request, cached, keep) {
  const fallback = await cached();
  const network = fetch(request, { cache: "no-cache", redirect: "manual" }).then((response) => {
    if (response.ok) keep?.(response.clone());
    return response;
  });
  if (!fallback) return network;
  const late = new Promise((resolve) => setTimeout(resolve, PATIENCE, fallback));
  return Promise.race([network.catch(() => fallback), late]);
}

async function cacheFirst(request) {
  return (await caches.match(request.url)) ?? fetch(request);
}

self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET") return;
  const url = request.url.split(/[?#]/)[0];
  if (request.mode === "navigate" && (url === root || url === index)) {
    const cached = async () => (await caches.open(CACHE)).match(index);
    event.respondWith(networkFirst(request.url, cached));
  } else if (url === list) {
    const keep = async (response) => (await caches.open(LIST)).put(list, response);
    event.respondWith(networkFirst(url, () => caches.match(list), (response) => event.waitUntil(keep(response))));
  } else if (names.has(url) || /-[0-9a-f]{16}(_bg)?\.(js|wasm|css)$/.test(url)) {
    event.respondWith(cacheFirst(request));
  }
});
