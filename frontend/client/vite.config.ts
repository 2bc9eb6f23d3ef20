import { defineConfig } from "vite";

// tsc writes the modules; this bundles the worker, which browsers load by itself, into one file beside them.
export default defineConfig({
  build: {
    outDir: "dist",
    emptyOutDir: false,
    target: "es2022",
    lib: { entry: "src/worker.ts", formats: ["es"], fileName: () => "worker.js" },
  },
});
