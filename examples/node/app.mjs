// A Node.js server: PORT=8001 node app.mjs
import http from "node:http";

const version = process.env.VERSION ?? "1.0.0";

const server = http.createServer((request, response) => {
  const delay = request.url.startsWith("/slow") ? 2000 : 0;
  setTimeout(() => {
    response.setHeader("Content-Type", "text/plain");
    response.setHeader("X-Worker", process.pid);
    response.end(`shop ${version}\n`);
  }, delay);
});

server.listen(process.env.PORT ?? 8001, "127.0.0.1");
// Stops accepting, closes idle connections and exits once the open requests are answered.
process.on("SIGTERM", () => server.close());
