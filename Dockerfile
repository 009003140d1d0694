# syntax=docker/dockerfile:1
# tilemapper with its models, as a user without rights.
#   docker build -t tilemapper:cpu --build-arg TORCH_INDEX=INDEX_OF_CPU_BUILDS .
#   docker build -t tilemapper:cuda .
# TORCH_INDEX is the package index to take torch from, as PyTorch's install page names it for CPU
# or for a CUDA version; without it torch comes from pip's own index.
#   docker run --rm -v "$PWD:/data" tilemapper render city.tif map.tif
# CUDA: run with --gpus all; the driver is the host's, everything else comes with torch.
# The version that constraints.txt was made with.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ARG TORCH_INDEX=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/tilemapper
ENV PATH=/opt/tilemapper/bin:$PATH
WORKDIR /src
COPY constraints.txt ./
# torch by itself first: it is large and changes seldom, so its layer is kept. constraints.txt
# gives its version, which all builds share.
RUN pip install -c constraints.txt ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} torch
COPY pyproject.toml README.md LICENSE ./
COPY models models
COPY pipelines pipelines
COPY tilemapper tilemapper
RUN pip install -c constraints.txt ".[archive]"

FROM python:${PYTHON}-slim
# GDAL inside rasterio's wheel takes this one library from the system.
RUN apt-get update && apt-get install --yes --no-install-recommends libexpat1 && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --create-home tilemapper
COPY --from=build /opt/tilemapper /opt/tilemapper
ENV PATH=/opt/tilemapper/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
WORKDIR /data
ENTRYPOINT ["tilemapper"]
CMD ["--help"]
