# The four commands for a cluster, with CUDA's driver libraries for older drivers.
#   docker build --tag resend .
#   docker run --gpus all --ipc host --volume DATA:/data resend train_ddp.py --config CONFIG
# The base is an argument, so that a site's own image can take its place; it needs apt and Python 3.10
# or later.
ARG BASE=nvidia/cuda:12.9.1-base-ubuntu24.04
FROM ${BASE}

# The base's tag decides the versions of its packages.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv tini \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/venv \
    && useradd --uid 10001 --create-home --shell /bin/bash resend

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/resend \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video

WORKDIR /opt/resend
ARG EXTRAS="cuda120 s3 http"
# Requirements alone first: a change of the code does not install them again.
COPY setup.cfg constraints.txt scripts/requirements.py ./
RUN python requirements.py ${EXTRAS} > requirements.txt \
    && pip install --no-cache-dir --constraint constraints.txt --requirement requirements.txt

COPY . .
RUN mkdir packs runs && chown resend: packs runs
USER 10001

# tini passes signals on, so that `docker stop` lets a run finish its step and save.
ENTRYPOINT ["tini", "--", "python"]
CMD ["train_ddp.py", "--help"]
