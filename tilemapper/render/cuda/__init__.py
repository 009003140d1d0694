"""The GPU path: a block painted and blended on a CUDA device, bytes up and bytes down."""
