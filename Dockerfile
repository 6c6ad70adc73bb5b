# dive-agent in a container. The base images are arguments, so that it builds from a company's own, or offline:
#
#   docker build --build-arg VERSION=$(git describe --tags --always) -t dive-agent .
#
# It talks to the host's engine and to containers by their addresses, and its folder is mounted into them, so it must have
# the same path inside and outside:
#
#   docker run -d --name dive-agent --restart unless-stopped --network host \
#     --cap-drop ALL --cap-add CHOWN --cap-add FOWNER --cap-add DAC_OVERRIDE --security-opt no-new-privileges \
#     -v /var/run/docker.sock:/var/run/docker.sock -v /etc/dive-agent:/etc/dive-agent:ro -v /etc/machine-id:/etc/machine-id:ro \
#     -v /var/lib/dive-agent:/var/lib/dive-agent dive-agent

ARG BUILD_IMAGE=golang:1.26-bookworm
ARG TERRAFORM_IMAGE=hashicorp/terraform:1.11
ARG RUN_IMAGE=debian:bookworm-slim

FROM ${TERRAFORM_IMAGE} AS terraform

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
# A program that was built already (make build), relative to the checkout; without it, the sources are built.
ARG PREBUILT=
ARG VERSION=unknown
ARG GOPROXY
ARG GONOSUMDB
COPY . .
RUN set -eu; \
  if [ -n "$PREBUILT" ]; then install -D -m 0755 "$PREBUILT" /out/dive-agent; \
  else CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o /out/dive-agent ./cmd/dive-agent; \
  fi; \
  /out/dive-agent version

FROM ${RUN_IMAGE}
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=terraform /bin/terraform /usr/local/bin/terraform
COPY --from=build /out/dive-agent /usr/local/bin/dive-agent
ENV HOME=/var/lib/dive-agent
VOLUME ["/var/lib/dive-agent"]
STOPSIGNAL SIGTERM
# The agent answers about itself on its local socket.
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s CMD ["dive-agent", "status"]
ENTRYPOINT ["dive-agent"]
CMD ["run"]
