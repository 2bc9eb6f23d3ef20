import { defineConfig } from "vite";

// Served by backend/demo/live.py below /demo/live/, whatever that is mounted at: addresses are relative.
export default defineConfig({
  base: "./",
  build: { outDir: "dist", target: "es2022", modulePreload: { polyfill: false }, assetsInlineLimit: 0 },
  // The client has a React of its own for its tests.
  resolve: { dedupe: ["react", "react-dom"] },
  worker: { format: "es" },
});
