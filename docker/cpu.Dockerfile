# The CPU set, as `make setup` installs it. Not built here: there is no Docker on the machines of this project.
#     docker build -f docker/cpu.Dockerfile -t verl-lab:cpu .
#     docker run --shm-size=4g -v "$PWD/data:/workspace/verl-lab/data" -v "$PWD/outputs:/workspace/verl-lab/outputs" verl-lab:cpu
FROM python:3.11-slim-bookworm
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# a compiler for what has no wheel, git for run.json, procps and the like for Ray
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential git libnuma1 make procps \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /workspace/verl-lab
COPY . .
RUN make setup HW=cpu PYTHON=python3 && rm -rf /root/.cache
ENV PATH=/workspace/verl-lab/.venv/bin:$PATH
ENTRYPOINT ["python", "launch.py"]
CMD ["--help"]
