# docker build -t tnt-lab . && docker run --rm tnt-lab launch ablation=inner_heads scale=demo
# For Apptainer: tnt-lab.def
FROM python:3.11-slim-bookworm
# g++ for torch.compile; git, as a record names the commit of the code where its .git is mounted.
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ git \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/tnt-lab
COPY setup.cfg pyproject.toml constraints.txt README.md LICENSE ./
COPY tnt tnt
COPY pipeline pipeline
COPY ablations ablations
COPY results results
RUN pip install --no-cache-dir -c constraints.txt -e '.[train,report]'
ENTRYPOINT ["tnt"]
