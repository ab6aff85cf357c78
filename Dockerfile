# stepin in a container: the server by default, every other command as well.
#
#   docker build -t stepin .
#   docker run --rm stepin --help
#   docker compose up                  the service with PostgreSQL: compose.yaml
#
# One lock for all: following models:/NAME@ALIAS needs MLflow, and building features needs pandas, in processes
# of their own; the server process itself loads neither.

FROM python:3.11-slim AS build
WORKDIR /build
RUN python -m venv /opt/stepin
COPY requirements/run.txt requirements/run.txt
RUN /opt/stepin/bin/python -m pip install --no-cache-dir --require-hashes -r requirements/run.txt
COPY pyproject.toml README.md stepin.py ./
COPY features features
COPY training training
COPY serving serving
COPY stepin_cli stepin_cli
RUN /opt/stepin/bin/python -m pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.11-slim
COPY --from=build /opt/stepin /opt/stepin
ENV PATH=/opt/stepin/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN useradd --system --uid 10001 --create-home --home-dir /srv/stepin stepin
# The working folder holds stepin.db and MLflow's store, unless STEPIN_DATABASE and MLFLOW_TRACKING_URI say else.
WORKDIR /srv/stepin
VOLUME /srv/stepin
USER 10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/readyz', timeout=2)"]
ENTRYPOINT ["stepin"]
# Other addresses than the loopback need an API key: stepin key create NAME --scope score
CMD ["serve", "/models/stepin", "--host", "0.0.0.0", "--port", "8080"]
