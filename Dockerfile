# The static binary that `make build` made, and nothing else. `make docker` does both.
FROM scratch
COPY --chown=65532:65532 docker/empty /data
COPY --chown=65532:65532 docker/empty /secret
COPY bin/bucketdb /bucketdb
USER 65532:65532
VOLUME ["/data"]
ENV BUCKETDB_API=:9080 \
    BUCKETDB_HTTP=:8080 \
    BUCKETDB_METADATA=/data/metadata \
    BUCKETDB_STORAGE=/data/chunks
EXPOSE 9080 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["/bucketdb", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/bucketdb"]
