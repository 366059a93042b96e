# SPDX-License-Identifier: Apache-2.0
# Our images. Target `client` plays and asks, `trainer` also has PyTorch: it learns, exports and publishes.
# By tag, for that is what gets Debian's security updates; `--build-arg PYTHON=IMAGE@sha256:...` pins one: docs/operating.md.
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS builder
RUN command -v gcc >/dev/null || { apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev; }
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
COPY pyproject.toml constraints.txt requirements.lock docker/requirements.py ./
RUN python -m venv --without-pip /opt/venv

FROM builder AS client-packages
RUN --mount=type=cache,target=/root/.cache/pip \
    python requirements.py client >wanted.txt && pip --python /opt/venv/bin/python install --require-hashes -r wanted.txt
# 75 MB that no client needs: Arrow's RPC, tests, headers, symbols for debuggers.
RUN cd /opt/venv/lib/python3*/site-packages \
    && rm -rf pyarrow/include pyarrow/src pyarrow/tests pyarrow/*flight* numpy/tests numpy/*/tests \
    && strip --strip-unneeded pyarrow/*.so* ml_dtypes/*.so rapidjson*.so \
    && /opt/venv/bin/python -c 'import pyarrow.parquet, tritonclient.grpc'

FROM builder AS trainer-packages
# Of PyTorch's own index where another build is wanted than pip finds by itself (CPU only; another CUDA).
# So torch has a version here and no hash: each index has another file of that version.
ARG TORCH_INDEX=
RUN --mount=type=cache,target=/root/.cache/pip \
    python requirements.py train >wanted.txt && pip --python /opt/venv/bin/python install --require-hashes -r wanted.txt \
    && pip --python /opt/venv/bin/python install -c constraints.txt \
    ${TORCH_INDEX:+--extra-index-url ${TORCH_INDEX}} torch

FROM builder AS app
RUN --mount=type=cache,target=/root/.cache/pip \
    python requirements.py build >wanted.txt && pip install --require-hashes -r wanted.txt
# For any x86-64 processor of the last ten years, not for this machine's.
ENV BLOBZERO_MARCH=x86-64-v3
# The C code first: the wheel takes it from build/, where it is newer than what it was made of (hence touch), so a change
# of the Python around it compiles nothing.
COPY setup.py ./
COPY mcts_ext/*.pyx mcts_ext/*.pxd mcts_ext/__init__.py mcts_ext/contract.py mcts_ext/
RUN python setup.py -q build_ext
COPY . .
RUN touch -d @0 mcts_ext/*.p* \
    && pip wheel --no-build-isolation --no-deps -w /wheels . \
    && pip --python /opt/venv/bin/python install --no-deps --target /opt/app /wheels/*.whl && rm /opt/app/mcts_ext/*.c

FROM ${PYTHON} AS base
LABEL org.opencontainers.image.title="BlobZero" \
      org.opencontainers.image.description="Self-play and training for the card game Blob (Oh Hell)" \
      org.opencontainers.image.licenses="Apache-2.0"
# A new volume takes the owner of the folder it is mounted on. 1000 is also triton-server in NVIDIA's image.
RUN useradd --uid 1000 --create-home blobzero \
    && install -d -o blobzero -g blobzero /models /runs /keys
ENV PATH=/opt/app/bin:/opt/venv/bin:$PATH PYTHONPATH=/opt/app PYTHONDONTWRITEBYTECODE=1 MPLCONFIGDIR=/tmp
USER 1000:1000
WORKDIR /runs
ENTRYPOINT ["blobzero"]

FROM base AS client
COPY --from=client-packages /opt/venv /opt/venv
COPY --from=app /opt/app /opt/app

FROM base AS trainer
COPY --from=trainer-packages /opt/venv /opt/venv
COPY --from=app /opt/app /opt/app
