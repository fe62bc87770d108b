# The GPU set on verl's published image. Not built here: there is no Docker on the machines of this project.
#     docker build -f docker/gpu.Dockerfile -t verl-lab:gpu .
#     docker run --gpus all --shm-size=16g -v "$PWD/data:/workspace/verl-lab/data" -v "$PWD/outputs:/workspace/verl-lab/outputs" verl-lab:gpu
# The tag is one of https://hub.docker.com/r/verlai/verl: vLLM 0.24, as verl 0.9.1 wants it, CUDA 13.0, Python 3.12.
FROM verlai/verl:vllm024.dev2
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /workspace/verl-lab
COPY requirements-gpu.txt ./
RUN python3 -m pip install --no-cache-dir -r requirements-gpu.txt
COPY . .
RUN python3 -m pip install --no-cache-dir --no-deps --no-build-isolation -e .
ENTRYPOINT ["python3", "launch.py"]
CMD ["--help"]
