# CPU by default; for CUDA: docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126 .
ARG PYTHON=python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d

FROM ${PYTHON} AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/adiabat
COPY pyproject.toml constraints.txt README.md ./
# torch first, from its own index: the default index would bring several GB of CUDA
RUN /opt/adiabat/bin/pip install --constraint constraints.txt --extra-index-url ${TORCH_INDEX} torch
COPY app app
COPY samples samples
COPY trainer trainer
RUN /opt/adiabat/bin/pip install --constraint constraints.txt '.[otel,postgres,s3]'

FROM ${PYTHON}
RUN useradd --create-home --uid 10001 adiabat && mkdir /data && chown adiabat /data
COPY --from=build /opt/adiabat /opt/adiabat
ENV PATH=/opt/adiabat/bin:$PATH ADIABAT_DATA_DIR=/data PYTHONUNBUFFERED=1
USER adiabat
WORKDIR /home/adiabat
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=90s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health/ready', timeout=2)"]
CMD ["adiabat", "serve", "--no-trainer", "--host", "0.0.0.0", "--port", "8000"]
