#   docker build -t automix .                            CPU
#   docker build -t automix --build-arg DEVICE=gpu .     CUDA; run with --gpus all
#   docker run --rm -v "$PWD/photos:/photos" -v "$PWD/runs:/runs" automix search /photos --output /runs/mine
ARG PYTHON=3.13
FROM python:${PYTHON}-slim

ARG DEVICE=cpu
RUN pip install --no-cache-dir uv && \
    useradd --create-home automix && mkdir /runs && chown automix /runs

WORKDIR /opt/automix
COPY pyproject.toml setup.py README.md LICENSE constraints.txt ./
COPY automix automix
COPY envs envs
COPY agents agents
COPY configs configs
# The CUDA libraries come with torch's usual wheels; those for a CPU are 3 GB smaller.
RUN case "$DEVICE" in \
      cpu) backend="--torch-backend=cpu" ;; \
      gpu) backend="" ;; \
      *) echo "DEVICE: expected cpu or gpu, got $DEVICE" >&2; exit 1 ;; \
    esac && \
    uv pip install --system --no-cache --compile-bytecode --constraint constraints.txt $backend .

# A search writes into the folder that is mounted here, and nowhere else.
USER automix
WORKDIR /runs
ENTRYPOINT ["automix"]
CMD ["--help"]
