# SPDX-License-Identifier: Apache-2.0
# Triton without a GPU: NVIDIA's server out of its wheel, our Python-based backends, and what watches over them.
# (With a GPU the stack takes NVIDIA's own image: compose.yaml.)
# By tag, for that is what gets Debian's security updates; `--build-arg PYTHON=IMAGE@sha256:...` pins one: docs/operating.md.
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS packages
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
COPY pyproject.toml requirements.lock docker/requirements.py ./
RUN python -m venv --without-pip /opt/venv
RUN --mount=type=cache,target=/root/.cache/pip \
    python requirements.py serve >wanted.txt \
    && pip --python /opt/venv/bin/python install --require-hashes -r wanted.txt

FROM ${PYTHON}
LABEL org.opencontainers.image.title="BlobZero's Triton for CPUs" \
      org.opencontainers.image.description="NVIDIA Triton with Python-based backends: OpenVINO, ONNX Runtime" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 1000 --create-home triton-server && install -d -o triton-server -g triton-server /models /keys
COPY --from=packages /opt/venv /opt/venv
COPY mcts_ext/*.py /opt/app/mcts_ext/
COPY clients /opt/app/clients
COPY serving /opt/app/serving
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/opt/app PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
WORKDIR /opt/app
EXPOSE 8001 8002
ENTRYPOINT ["python", "-m", "serving"]
