# The gateway's image: the wheel and its locked dependencies in one venv, no compiler, no root.
#
#   docker build -t laadplein .
#   docker run --rm laadplein --help

FROM docker.io/library/python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv /build && python -m venv --without-pip /opt/laadplein
# The locks first: they change less often than the code, and this layer is the slow one.
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN /build/bin/pip install --quiet --require-hashes --requirement requirements/build.txt \
 && /build/bin/pip --python /opt/laadplein/bin/python install --quiet --no-compile --require-hashes --requirement requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY controller controller
COPY drivers drivers
COPY simulators simulators
# A file system that is read-only at run time keeps no bytecode: it is compiled here, valid whatever the files' dates.
RUN /build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheel . \
 && /build/bin/pip --python /opt/laadplein/bin/python install --quiet --no-compile --no-deps /wheel/*.whl \
 && python -m compileall -q --invalidation-mode unchecked-hash /opt/laadplein/lib

FROM docker.io/library/python:3.13-slim
LABEL org.opencontainers.image.title="laadplein" \
      org.opencontainers.image.description="Open smart-charging controller for business parks" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/laadplein/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    LAADPLEIN_HEALTH_URL=http://127.0.0.1:8080/health
# A number, so that an orchestrator can see that it is not root; /var/lib/laadplein is where a site file may keep state.
RUN install -d -o 10001 -g 10001 -m 0750 /var/lib/laadplein
COPY --from=build /opt/laadplein /opt/laadplein
USER 10001:10001
WORKDIR /var/lib/laadplein
VOLUME /var/lib/laadplein
# 9000: charging stations (OCPP). 8080: state, health and metrics.
EXPOSE 9000 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as web; web.urlopen(os.environ['LAADPLEIN_HEALTH_URL'], timeout=4)"]
ENTRYPOINT ["laadplein"]
CMD ["run", "/etc/laadplein/site.toml"]
