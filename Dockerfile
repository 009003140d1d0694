# syntax=docker/dockerfile:1
# tilemapper with its models, as a user without rights.
#   docker build -t tilemapper .                              CPU
#   docker build -t tilemapper:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .
#   docker run --rm -v "$PWD:/data" tilemapper render city.tif map.tif
# CUDA: run with --gpus all; the driver is the host's, everything else comes with torch.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/tilemapper
ENV PATH=/opt/tilemapper/bin:$PATH
# torch by itself first: it is large and changes seldom, so its layer is kept.
RUN pip install --index-url "${TORCH_INDEX}" --extra-index-url https://pypi.org/simple "torch>=2.11,<2.14"
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY models models
COPY pipelines pipelines
COPY tilemapper tilemapper
# constraints.txt pins the CPU build of torch by its number alone, which every build shares.
RUN pip install ".[archive]"

FROM python:${PYTHON}-slim
RUN useradd --uid 10001 --create-home tilemapper
COPY --from=build /opt/tilemapper /opt/tilemapper
ENV PATH=/opt/tilemapper/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
WORKDIR /data
ENTRYPOINT ["tilemapper"]
CMD ["--help"]
