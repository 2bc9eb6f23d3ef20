import { defineConfig } from "vite";

// Relative names, so that the page works under any prefix it is mounted at.
export default defineConfig({
  base: "./",
  build: {
    outDir: "../../backend/redis_core/static/dashboard",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: false,
    target: "es2022",
  },
});
