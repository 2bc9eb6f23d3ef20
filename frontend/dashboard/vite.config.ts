import { defineConfig, type Plugin } from "vite";

/** Each tab has a stream of its own, and only while it is looked at: the client's shared worker is not shipped. */
const withoutWorker: Plugin = {
  name: "without-worker",
  enforce: "pre",
  transform: (code, id) => (id.endsWith("/link.js") ? code.replace('new URL("./worker.js", import.meta.url)', '""') : null),
};

// Relative names, so that the page works under any prefix it is mounted at.
export default defineConfig({
  base: "./",
  plugins: [withoutWorker],
  build: {
    outDir: "../../backend/redis_core/static/dashboard",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: false,
    target: "es2022",
  },
});
