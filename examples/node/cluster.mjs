// Several processes that share one port: PORT=8001 WORKERS=4 node cluster.mjs
import cluster from "node:cluster";
import os from "node:os";

if (cluster.isPrimary) {
  const workers = Number(process.env.WORKERS ?? os.availableParallelism());
  let stopping = false;
  process.on("SIGTERM", () => {
    stopping = true;
    for (const worker of Object.values(cluster.workers)) worker.process.kill("SIGTERM");
  });
  cluster.on("exit", () => {
    if (!stopping) cluster.fork();
  });
  for (let n = 0; n < workers; n++) cluster.fork();
} else {
  await import("./app.mjs");
  // The channel to the primary process would keep a stopped worker alive.
  process.once("SIGTERM", () => cluster.worker.disconnect());
}
