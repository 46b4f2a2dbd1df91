"""HAProxy as the engine of a node (docs/guide/haproxy-engine.md): configuration, runtime commands, statistics, supervision."""
