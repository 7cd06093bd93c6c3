# SPDX-License-Identifier: Apache-2.0
#
# The image: the static binary, a CA bundle and nothing else. It compiles nothing, so it needs no base image and no
# network: `make image` first puts the files that it copies under bin/image. Then any of these does:
#
#   make image                                                   # buildah: reproducible, archives in bin/image
#   docker buildx build --platform linux/amd64,linux/arm64 .     # the same files by another tool
#
# A tool other than buildah packs the same files in other layers, with another digest.
FROM scratch
ARG TARGETARCH
COPY bin/image/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY bin/image/linux/${TARGETARCH}/svcscope /bin/svcscope
ENV PATH=/bin
# UID 0 without capabilities but those that the pod's spec gives: docs/privileges.md says why.
USER 0
ENTRYPOINT ["/bin/svcscope"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="svcscope" \
      org.opencontainers.image.description="What a Kubernetes node's kernel really does with Services" \
      org.opencontainers.image.source="https://github.com/svcscope/svcscope" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
