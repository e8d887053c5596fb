# numbanet on the CPU; build and use it as docker/README.md says.
FROM python:3.12-slim
WORKDIR /numbanet
COPY . .
RUN pip install --no-cache-dir '.[samples,snapshots]' && useradd --create-home user
USER user
WORKDIR /home/user
ENTRYPOINT ["numbanet"]
CMD ["doctor"]
