# syntax=docker/dockerfile:1
# Two images, each one static binary and nothing else:
#   docker build --target motemq -t motemq .              the broker with motemq-certs beside it (the default)
#   docker build --target motemq-sim -t motemq-sim .      the simulator
# deploy/README.md says how to run them. No shell, no package manager, no root.

# Alpine, because its Rust makes static binaries; mimalloc replaces musl's allocator in the binary.
FROM rust:1.95-alpine AS build
RUN apk add --no-cache build-base linux-headers
WORKDIR /src
COPY . .
# One build for both images, so that compose compiles once.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked -p motemq -p motemq-certs -p motemq-sim \
    && mkdir -p /out/data \
    && cp target/release/motemq target/release/motemq-certs target/release/motemq-sim /out/ \
    && strip /out/motemq /out/motemq-certs /out/motemq-sim

FROM scratch AS motemq-sim
LABEL org.opencontainers.image.title="motemq-sim" \
      org.opencontainers.image.description="Simulates fleets of constrained MQTT devices behind narrow links and audits delivery" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /out/motemq-sim /motemq-sim
USER 65532:65532
EXPOSE 9884
ENTRYPOINT ["/motemq-sim"]
CMD ["--help"]

FROM scratch AS motemq
LABEL org.opencontainers.image.title="motemq" \
      org.opencontainers.image.description="MQTT broker for constrained devices that never acknowledges what it could still lose" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /out/motemq /motemq
COPY --from=build /out/motemq-certs /motemq-certs
COPY --from=build --chown=65532:65532 /out/data /data
USER 65532:65532
VOLUME /data
# Variables win over a configuration file, and flags over them. Loopback would be the container's own: who reaches its network reaches
# metrics and health, and the API with the token in /data/api.token.
ENV MOTEMQ_DATA_DIR=/data \
    MOTEMQ_HTTP__BIND=0.0.0.0:9883
# MQTT, over TLS, over WebSocket, over WebSocket and TLS; metrics, health and API.
EXPOSE 1883 8883 8083 8084 9883
# The command closes listeners and commits within limits.stop_timeout_s; `docker stop` waits ten seconds, more than that.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["/motemq", "healthcheck"]
ENTRYPOINT ["/motemq"]
CMD ["run"]
