# numbanet on NVIDIA GPUs. The wheels of the toolkit bring what compiles; the driver is the host's.
FROM python:3.12-slim
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /numbanet
COPY . .
RUN pip install --no-cache-dir '.[samples,snapshots,cu13]' && useradd --create-home user
USER user
WORKDIR /home/user
ENTRYPOINT ["numbanet"]
CMD ["doctor"]
