# The project with all its packages, for a CPU (docs/SCALE.md has the wheels for CUDA):
#   docker build -t mocoop .
#   docker run --rm -v "$PWD/output:/mocoop/output" mocoop bash scripts/mocoop/main.sh demo 16
#   docker run --rm -v /photos:/photos:ro -v "$PWD/output:/mocoop/output" mocoop python scripts/compare.py /photos 16
# With a GPU: docker build --build-arg TORCH=https://download.pytorch.org/whl/cu128 ..., and docker run --gpus all ...
FROM python:3.12-slim
ARG TORCH=https://download.pytorch.org/whl/cpu
WORKDIR /mocoop
COPY . .
RUN pip install --no-cache-dir --extra-index-url "$TORCH" -r requirements.txt -e ".[export,explore,openclip]"
ENV PYTHON=python MOCOOP_CACHE=/mocoop/output/.cache
CMD ["python", "scripts/demo.py"]
